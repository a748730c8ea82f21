"""Decide which pages of a listing to request next, and whether every page was read.

The server may report totals or none, may use a smaller page than requested, and may be wrong about either. With totals,
the pages up to the last are requested, several at a time. Pages after it are requested as long as full pages prove
that the total is too low, or if a number of pages is reported without a total. Without totals, one page is requested
after the other until a short page or one without new rows.
"""

from dataclasses import dataclass, field

from marketplace_sync.protocol.events import SkillPage

# A listing that reports more pages than it has ends after this many empty ones in a row.
EMPTY_PAGES_END = 3
# At most this many rows are requested at a time, or one page if it has more. Two more pages may wait for the writer.
ROWS_AHEAD = 1000
# A listing ends after this many pages in a row without a new row. A catalogue that changes while it is read moves by a
# few rows and not by three pages; one that repeats itself would be read to `max_pages`, for hours.
REPEATED_PAGES_END = 3


@dataclass(slots=True)
class PagePlan:
    """The reading of one listing. Call `next_page()` for a page number until it returns `None`; report with `read()`.

    `page_size` is the size that is requested; `max_pages` bounds the reading, whatever the server reports.
    """

    page_size: int
    max_pages: int
    parallel: int = 4
    first_total: int | None = None
    last_total: int | None = None
    last_page: int | None = None  # as reported; None: not reported, or page 1 is not read yet
    pages_read: int = 0
    problem: str = ""  # why not every page was read; "" as long as all is well
    _next: int = 1
    _size: int = 1
    _under_way: set[int] = field(default_factory=set)
    _empty_in_a_row: int = 0
    _repeated_in_a_row: int = 0
    _listed: int = 0
    _ended: bool = False

    def next_page(self) -> int | None:
        """Return the next page to request; `None` if none can be requested now (see `done`)."""
        if self._ended or len(self._under_way) >= self._width():
            return None
        if self.last_page is not None and self._next > self.last_page:
            return None
        if self._next > self.max_pages:
            self._end(f"the listing has more than {self.max_pages} pages (ATOM_SAAS_MAX_PAGES)")
            return None
        number = self._next
        self._next += 1
        self._under_way.add(number)
        return number

    def read(self, number: int, page: SkillPage, *, new: int) -> None:
        """Note that page `number` was read; `new` of its rows were on no page that was read before."""
        self._under_way.discard(number)
        self.pages_read += 1
        self._listed += new
        if self._listed > self.max_pages * self.page_size:
            # Pages may be as large as the server likes, so their number alone bounds nothing.
            self._end(f"the listing has more than {self.max_pages * self.page_size} skills (ATOM_SAAS_MAX_PAGES)")
            return
        if number == 1:
            self._size = self._true_size(page)
        pages = self._reported_pages(page)
        if pages is None:
            self._ended = self._ended or page.rows < self._size or new == 0
            return
        self._extend(number, page, pages, new=new)
        if page.rows:
            self._note_rows(number, pages, new=new)
        else:
            self._note_empty(number, pages)

    @property
    def done(self) -> bool:
        """Return whether no page is under way and none is left to request."""
        if self._under_way:
            return False
        return self._ended or (self.last_page is not None and self._next > self.last_page)

    def _width(self) -> int:
        """Return how many pages may be under way: 1 without totals, when only a page shows whether another follows."""
        if self.last_page is None:
            return 1
        # Memory is bounded in rows, however many of them a page has.
        return max(1, min(self.parallel, ROWS_AHEAD // max(self._size, 1)))

    def _true_size(self, first: SkillPage) -> int:
        """Return the rows per page: as reported, or those of page 1 if it had fewer although more were reported."""
        size = min(self.page_size, first.page_size or self.page_size)
        if first.total is not None and 0 < first.rows < min(size, first.total):
            return first.rows
        return size

    def _reported_pages(self, page: SkillPage) -> int | None:
        """Return how many pages there are by this page's own totals; `None` if it has none."""
        if page.total is not None:
            self.first_total = page.total if self.first_total is None else self.first_total
            self.last_total = page.total
        elif page.total_pages is None:
            return None
        by_total = -(-page.total // self._size) if page.total is not None else 0
        return max(page.total_pages or 0, by_total, 1)

    def _extend(self, number: int, page: SkillPage, pages: int, *, new: int) -> None:
        """Move the last page: as reported, and one further if this page shows that the totals are too low."""
        # One page beyond `max_pages` suffices: there `next_page` reports that the listing is too long.
        self.last_page = max(self.last_page or 1, min(pages, self.max_pages + 1))
        at_least = (number - 1) * self._size + page.rows
        explained = page.total is not None and page.total >= at_least
        if number == self.last_page and page.rows >= self._size and new and not explained:
            # The last page is full, and there are more rows than the total, or there is no total: a page may follow.
            self.last_page += 1

    def _note_rows(self, number: int, pages: int, *, new: int) -> None:
        self._empty_in_a_row = 0
        self._repeated_in_a_row = 0 if new else self._repeated_in_a_row + 1
        if self._repeated_in_a_row >= REPEATED_PAGES_END:
            complete = self.last_total is not None and self._listed >= self.last_total
            self._end("" if complete else f"page {number} of {pages} repeats what was listed before")

    def _note_empty(self, number: int, pages: int) -> None:
        self._empty_in_a_row += 1
        if 1 < number <= pages and not self.problem:
            self.problem = f"page {number} of {pages} came empty"
        if self._empty_in_a_row >= EMPTY_PAGES_END:
            self._ended = True

    def _end(self, problem: str) -> None:
        self._ended = True
        self.problem = self.problem or problem
