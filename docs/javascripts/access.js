// What the theme's own scripts add to a page, so that it can be told apart and reached with the keyboard.
const mend = () => {
  // Each of these is a landmark without a name otherwise.
  document.querySelectorAll("nav.md-code__nav").forEach((each) => each.setAttribute("role", "presentation"));
  document.querySelectorAll(".md-typeset__scrollwrap, .highlight-ipynb").forEach((each) => {
    if (each.scrollWidth > each.clientWidth) each.tabIndex = 0;
    else each.removeAttribute("tabindex");
  });
};
new MutationObserver(mend).observe(document.body, { childList: true, subtree: true });
addEventListener("resize", mend);
mend();
