"""Which pages of a listing to ask for next, and whether every page was read.

The server may tell totals or none, may use a smaller page than asked for, may lie about either.
With totals the pages up to the last are asked for, several at once, and those after it as long as full pages prove the
total too low, or none is told beside the number of pages; without, one after the other until a short page or one with
nothing new.
"""

from dataclasses import dataclass, field

from marketplace_sync.protocol.events import SkillPage

# A listing that tells more pages than it has ends after this many empty ones in a row.
EMPTY_PAGES_END = 3
# Rows that may be asked for at once, or one page that has more: two pages more are with the writer by then.
ROWS_AHEAD = 1000
# And after this many in a row with nothing that was not listed before. A catalogue that changes while it is read moves
# by a few rows, not by three pages; one that repeats itself would be read to `max_pages`, for hours.
REPEATED_PAGES_END = 3


@dataclass(slots=True)
class PagePlan:
    """The reading of one listing. Ask `next_page()` for a page number until it says `None`; report with `read()`.

    `page_size` is what is asked for; `max_pages` bounds the reading whatever the server tells.
    """

    page_size: int
    max_pages: int
    parallel: int = 4
    first_total: int | None = None
    last_total: int | None = None
    last_page: int | None = None  # as far as told; None: not told, or page 1 is not read yet
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
        """The next page to ask for; `None` when nothing more can be asked for now (see `done`)."""
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
        """Page `number` came; `new` of its rows were not seen before in this reading."""
        self._under_way.discard(number)
        self.pages_read += 1
        self._listed += new
        if self._listed > self.max_pages * self.page_size:
            # Pages may be as large as the server likes, so their number alone bounds nothing.
            self._end(f"the listing has more than {self.max_pages * self.page_size} skills (ATOM_SAAS_MAX_PAGES)")
            return
        if number == 1:
            self._size = self._true_size(page)
        told = self._told_pages(page)
        if told is None:
            self._ended = self._ended or page.rows < self._size or new == 0
            return
        # No page after the one that is one too many is ever asked for, whatever number is told.
        self.last_page = max(self.last_page or 1, min(told, self.max_pages + 1))
        at_least = (number - 1) * self._size + page.rows
        if number == self.last_page and page.rows >= self._size and new and not _is_told(page.total, at_least):
            # The last page is full of rows that should not exist by the total, or none says whether they are all.
            self.last_page += 1
        if page.rows:
            self._empty_in_a_row = 0
            self._repeated_in_a_row = 0 if new else self._repeated_in_a_row + 1
            if self._repeated_in_a_row >= REPEATED_PAGES_END:
                all_told = self.last_total is not None and self._listed >= self.last_total
                self._end("" if all_told else f"page {number} of {told} repeats what was listed before")
            return
        self._empty_in_a_row += 1
        if 1 < number <= told and not self.problem:
            self.problem = f"page {number} of {told} came empty"
        if self._empty_in_a_row >= EMPTY_PAGES_END:
            self._ended = True

    @property
    def done(self) -> bool:
        """Nothing is under way and nothing is left to ask for."""
        if self._under_way:
            return False
        return self._ended or (self.last_page is not None and self._next > self.last_page)

    def _width(self) -> int:
        """Without totals the end is only known by reading page after page."""
        if self.last_page is None:
            return 1
        # Memory is for so many rows, however they are cut into pages.
        return max(1, min(self.parallel, ROWS_AHEAD // max(self._size, 1)))

    def _true_size(self, first: SkillPage) -> int:
        """Rows a page: as told, or as few as page 1 had although more were told to exist."""
        size = min(self.page_size, first.page_size or self.page_size)
        if first.total is not None and 0 < first.rows < min(size, first.total):
            return first.rows
        return size

    def _told_pages(self, page: SkillPage) -> int | None:
        """How many pages there are by this page's own totals; `None` where it tells none."""
        if page.total is not None:
            self.first_total = page.total if self.first_total is None else self.first_total
            self.last_total = page.total
        elif page.total_pages is None:
            return None
        by_total = -(-page.total // self._size) if page.total is not None else 0
        return max(page.total_pages or 0, by_total, 1)

    def _end(self, problem: str) -> None:
        self._ended = True
        self.problem = self.problem or problem


def _is_told(total: int | None, rows: int) -> bool:
    return total is not None and total >= rows
