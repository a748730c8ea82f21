// Error pages use the theme that was chosen in the admin, else the theme of the system.
try {
    const chosen = JSON.parse(localStorage.getItem("adminTheme"));
    if (chosen === "dark" || chosen === "light") {
        document.documentElement.dataset.theme = chosen;
    }
} catch {
    // No valid theme is stored, or the browser blocks the storage.
}
