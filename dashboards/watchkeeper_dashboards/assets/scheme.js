// Runs before the first paint (it is not one of Dash's scripts at the end of the page): sets the colour scheme that was
// chosen last, under the key that Mantine's toggle writes, or the system's. Without it a dark page would flash white.
(() => {
  let chosen = null;
  try {
    chosen = window.localStorage.getItem("mantine-color-scheme-value");
  } catch {
    // Storage may be forbidden; the system's scheme is good enough then.
  }
  const dark = chosen === "dark" || (chosen !== "light" && window.matchMedia("(prefers-color-scheme: dark)").matches);
  document.documentElement.setAttribute("data-mantine-color-scheme", dark ? "dark" : "light");
})();
