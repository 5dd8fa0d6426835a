// Start every view of this page; its table goes into a fold below it.
for (const figure of document.querySelectorAll("figure.view:not(.started)")) {
  const { element, kinds } = LabViews;
  const stage = element("div", { class: "view-stage" });
  const table = figure.querySelector(".view-table");
  figure.classList.add("started");
  try {
    const data = JSON.parse(figure.querySelector("script[type='application/json']").textContent);
    figure.prepend(stage);
    kinds[figure.dataset.view](stage, data);
    const fold = element("details", {}, element("summary", {}, "The same as a table"));
    fold.append(table);
    figure.append(fold);
  } catch (error) {
    stage.remove(); // the table stays as it is
    throw error;
  }
}

// In a notebook each view is in a separate frame: fit its height, follow the notebook's scheme.
if (window.frameElement) {
  const frame = window.frameElement;
  const fit = () => {
    frame.style.height = `${document.documentElement.offsetHeight}px`;
  };
  new ResizeObserver(fit).observe(document.documentElement);
  const notebook = window.parent.document.body;
  const follow = () => {
    const light = notebook.dataset.jpThemeLight;
    if (light) document.documentElement.dataset.scheme = light === "true" ? "light" : "dark";
  };
  new MutationObserver(follow).observe(notebook, { attributes: true });
  follow();
}
