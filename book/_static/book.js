// A button that copies the text of the element that it names, and says that it did.
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const source = document.getElementById(button.dataset.copy);
  const word = button.firstChild;
  try {
    await navigator.clipboard.writeText(source.textContent);
    word.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(source);
    word.textContent = "Selected: press Ctrl+C or ⌘C";
  }
  setTimeout(() => { word.textContent = "Copy"; }, 4000);
});

// What a search shows of a page is its text: not its buttons, and words of neighbouring cells apart.
document.addEventListener("DOMContentLoaded", () => {
  if (typeof Search === "undefined") return;
  const toText = Search.htmlToText;
  const furniture = ".bd-header-article, #jb-print-docs-body, .bd-sidebar-secondary, .chapter-tools, footer, button, svg";
  Search.htmlToText = (html, anchor) => {
    const page = new DOMParser().parseFromString(html.replace(/<\/(td|th|dt|dd|li|p|h\d)>/g, " $&"), "text/html");
    for (const element of page.querySelectorAll(furniture)) element.remove();
    return toText(page.documentElement.outerHTML, anchor);
  };
});

// The theme listens to the first button that opens a sidebar, which stands in a header not shown.
document.addEventListener("click", (event) => {
  const button = event.target.closest(".bd-header-article .sidebar-toggle");
  if (!button) return;
  const kind = button.classList.contains("primary-toggle") ? ".primary-toggle" : ".secondary-toggle";
  document.querySelector(`#pst-header ${kind}`)?.click();
});

// A formula that is wider than the screen is scrolled, so the keyboard must reach it.
document.addEventListener("DOMContentLoaded", () => {
  for (const formula of document.querySelectorAll("div.math")) {
    if (formula.scrollWidth <= formula.clientWidth) continue;
    formula.tabIndex = 0;
    formula.setAttribute("role", "group");
    formula.setAttribute("aria-label", "Formula");
  }
});
