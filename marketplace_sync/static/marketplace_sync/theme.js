// An error page follows the theme that was chosen in the admin; without one it follows the system.
try {
    const chosen = JSON.parse(localStorage.getItem("adminTheme"));
    if (chosen === "dark" || chosen === "light") {
        document.documentElement.dataset.theme = chosen;
    }
} catch {
    // Nothing is stored, or the browser forbids looking.
}
