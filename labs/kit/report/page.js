"use strict";
// The page is complete without this script: it adds comfort only.

// The table of contents: open where there is room for it, and the current section is marked.
const contents = document.querySelector("nav details");
const room = window.matchMedia("(min-width: 70rem)");
const fit = () => { contents.open = room.matches; };
room.addEventListener("change", fit);
fit();
const links = [...contents.querySelectorAll("a")];
const sections = links.map((link) => document.getElementById(link.getAttribute("href").slice(1)));
function mark() {
  const atEnd = innerHeight + scrollY > document.documentElement.scrollHeight - 2;
  const line = atEnd ? innerHeight : innerHeight / 4;
  const reached = sections.filter((one) => one.getBoundingClientRect().top < line);
  links.forEach((link, place) => {
    if (place === reached.length - 1) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  });
}
addEventListener("scroll", mark, { passive: true });
addEventListener("resize", mark);
mark();

// What scrolls can be reached by keyboard, and only what scrolls.
const resized = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
    else target.removeAttribute("tabindex");
  }
});
document.querySelectorAll("pre, .scroll, .math.block").forEach((one) => resized.observe(one));

// Commands can be copied.
for (const code of document.querySelectorAll(".run code")) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy";
  button.textContent = "copy";
  button.setAttribute("aria-live", "polite");
  button.addEventListener("click", async () => {
    getSelection().selectAllChildren(code);
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "copied";
    } catch {
      button.textContent = "selected"; // the browser keeps its clipboard to itself
    }
    setTimeout(() => { button.textContent = "copy"; }, 2000);
  });
  code.after(" ", button);
}

// On paper everything is unfolded.
let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open])")];
  folded.forEach((one) => { one.open = true; });
});
addEventListener("afterprint", () => folded.forEach((one) => { one.open = false; }));
