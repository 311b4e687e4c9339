// No module, and before everything else: a page must not flash in the wrong colours.
(() => {
  const root = document.documentElement;
  let stored = null;
  try {
    stored = localStorage.getItem("theme");
  } catch {
    // Storage is forbidden: the theme of the system holds.
  }
  if (stored === "light" || stored === "dark") root.dataset.theme = stored;
})();
