// The attention weights of every head of a model on a few sentences: all heads small, one large.
// The data:
//   layers, heads: their numbers; a head's index is layer · heads + head
//   sentences: { name, words, weights }; weights are packed, 0 to 255. For each head they are a
//     triangle by rows: query 0 to key 0, query 1 to keys 0 and 1, …
//   patterns: { name, means, scores }: what to search for, and a score from 0 to 1 for each head
LabViews.kinds.attention = (stage, data) => {
  const { element, percent } = LabViews;
  const { layers, heads, patterns } = data;
  const BEST = 8; // heads in the list of a pattern
  const KEYS = 6; // keys in the table of a query
  const sentences = data.sentences.map((one) => ({ ...one, weights: LabViews.unpack(one.weights) }));
  let { words, weights } = sentences[0];
  let head = 0;
  let query = 0;

  const nameOf = (index) => `layer ${Math.floor(index / heads) + 1}, head ${(index % heads) + 1}`;
  const weight = (index, i, j) => {
    const triangle = (words.length * (words.length + 1)) / 2;
    return weights[index * triangle + (i * (i + 1)) / 2 + j] / 255;
  };
  const bar = (share) => {
    const made = element("i");
    made.style.setProperty("--share", `${(100 * share).toFixed(1)}%`);
    return made;
  };

  // All heads: a canvas below a grid of cells, one row for each head and one column for each layer.
  const canvas = element("canvas", { "aria-hidden": "true" });
  const cells = Array.from({ length: layers * heads }, () => element("div", { role: "gridcell" }));
  const byRow = cells.map((_, i) => (i % layers) * heads + Math.floor(i / layers));
  const gridRows = Array.from({ length: heads }, (_, h) =>
    element("div", { role: "row" }, ...cells.filter((_, i) => i % heads === h)),
  );
  const grid = element("div", { class: "view-heads", role: "grid" }, ...gridRows);
  grid.setAttribute("aria-label", "heads: a row for each head, a column for each layer");
  const numbers = Array.from({ length: layers }, (_, i) => element("span", {}, String(i + 1)));
  const ruler = element("div", { class: "view-ruler", "aria-hidden": "true" }, ...numbers);
  const overview = element("div", { class: "view-overview" }, ruler, canvas, grid);
  overview.style.setProperty("--layers", layers);
  overview.style.setProperty("--heads", heads);

  const hideFirst = element("input", { type: "checkbox" });
  const drawOverview = () => {
    const side = 26 * Math.ceil(window.devicePixelRatio || 1); // pixels of a head
    canvas.width = layers * side;
    canvas.height = heads * side;
    const context = canvas.getContext("2d");
    context.fillStyle = getComputedStyle(canvas).color;
    const step = (0.9 * side) / words.length;
    for (let index = 0; index < cells.length; index += 1) {
      const x = (Math.floor(index / heads) + 0.05) * side;
      const y = ((index % heads) + 0.05) * side;
      for (let i = 0; i < words.length; i += 1) {
        for (let j = hideFirst.checked ? 1 : 0; j <= i; j += 1) {
          const w = weight(index, i, j);
          if (w < 0.02) continue;
          context.globalAlpha = w ** 0.4; // else small weights are invisible at this size
          context.fillRect(x + j * step, y + i * step, step, step);
        }
      }
    }
  };

  hideFirst.addEventListener("change", drawOverview);

  // One head: an SVG with a square for each query (row) and key (column).
  const SIDE = 22;
  const LEFT = 96;
  const TOP = 80;
  const map = element("svg", { role: "img", class: "view-map" });
  const frame = element("rect", { class: "frame", x: LEFT - 2, height: SIDE + 3, rx: 4 });
  const drawMap = () => {
    const parts = words.flatMap((word, i) => {
      const y = TOP + i * SIDE;
      const slanted = `translate(${LEFT + i * SIDE + 15} ${TOP - 6}) rotate(-55)`;
      const squares = words.slice(0, i + 1).map((_, j) => {
        const place = { x: LEFT + j * SIDE, y, width: SIDE - 1, height: SIDE - 1, rx: 3 };
        const shade = Math.max(0.05, weight(head, i, j));
        return element("rect", { ...place, "fill-opacity": shade, "data-query": i });
      });
      return [
        element("text", { x: LEFT - 7, y: y + 16, "text-anchor": "end", "data-query": i }, word),
        element("text", { transform: slanted }, word),
        ...squares,
      ];
    });
    const size = words.length * SIDE;
    map.setAttribute("viewBox", `0 0 ${LEFT + size + 40} ${TOP + size + 4}`);
    map.setAttribute("aria-label", `map of ${nameOf(head)}: queries down, keys across`);
    map.replaceChildren(...parts, frame);
  };
  map.addEventListener("pointerover", (event) => {
    const { query: row } = event.target.dataset;
    if (row !== undefined && Number(row) !== query) goToken(Number(row), false);
  });

  // The sentence, and where the chosen token looks.
  const sentenceBox = element("div");
  const bars = element("table", { class: "view-bars" });
  const live = LabViews.live();
  let chips = [];
  let goToken;

  const showQuery = (index) => {
    query = index;
    const found = words.slice(0, query + 1).map((word, j) => ({
      name: `${word} (${j + 1})`,
      w: weight(head, query, j),
    }));
    chips.forEach((chip, j) => {
      chip.style.setProperty("--share", `${j > query ? 0 : Math.round(50 * found[j].w)}%`);
      chip.classList.toggle("later", j > query);
    });
    frame.setAttribute("y", TOP + query * SIDE - 2);
    frame.setAttribute("width", (query + 1) * SIDE + 3);
    found.sort((a, b) => b.w - a.w);
    const rows = found.slice(0, KEYS).map(({ name, w }) => {
      const key = element("th", { scope: "row" }, name);
      const cell = element("td", { class: "bar" }, bar(w));
      return element("tr", {}, key, cell, element("td", {}, percent(w)));
    });
    const caption = element("caption", {}, `${words[query]} (${query + 1}) looks at`);
    bars.replaceChildren(caption, element("tbody", {}, ...rows));
    const most = found.slice(0, 3).map(({ name, w }) => `${name} ${percent(w)}`);
    live.say(`${nameOf(head)}: ${words[query]} (${query + 1}) looks at ${most.join(", ")}.`);
  };

  const showSentence = (index) => {
    ({ words, weights } = sentences[index]);
    chips = words.map((word, i) =>
      element("span", { role: "option", "aria-label": `${word}, token ${i + 1}` }, word),
    );
    const box = element("div", { class: "view-tokens view-chips", role: "listbox" }, ...chips);
    box.setAttribute("aria-label", "tokens: which one looks?");
    box.setAttribute("aria-orientation", "horizontal");
    sentenceBox.replaceChildren(box);
    goToken = LabViews.roving(box, chips, 1, showQuery);
    drawOverview();
    drawMap();
    const last = words.findLastIndex((word) => /\p{L}/u.test(word));
    goToken(Math.max(0, last), false);
  };

  // The search: heads that follow a pattern stay visible, the best are listed.
  const title = element("p", { class: "view-title" });
  const best = element("div", { class: "view-best" });
  const means = element("p", { class: "view-note" });
  const showHead = (at) => {
    head = byRow[at];
    title.textContent = `L${nameOf(head).slice(1)}`;
    for (const button of best.children) {
      button.setAttribute("aria-pressed", String(Number(button.value) === head));
    }
    const cell = cells[head];
    around.scrollLeft = cell.offsetLeft - around.clientWidth / 2; // where the page is narrow
    drawMap();
    showQuery(query);
  };
  const around = LabViews.scroller("all heads", overview);
  const inRows = byRow.map((index) => cells[index]);
  const goHead = LabViews.roving(grid, inRows, layers, showHead, ["focusin", "click"]);
  const showPattern = (index) => {
    const { scores } = patterns[index];
    means.textContent = `${patterns[index].means} The best heads, as layer·head:`;
    const ranked = scores.map((_, i) => i).sort((a, b) => scores[b] - scores[a]);
    const buttons = ranked.slice(0, BEST).map((i) => {
      const text = `${Math.floor(i / heads) + 1}·${(i % heads) + 1}  ${percent(scores[i])}`;
      const button = element("button", { type: "button", value: i }, text);
      button.setAttribute("aria-label", `${nameOf(i)}: ${percent(scores[i])}`);
      button.addEventListener("click", () => goHead(byRow.indexOf(i), false));
      return button;
    });
    best.replaceChildren(...buttons);
    cells.forEach((cell, i) => {
      cell.style.setProperty("--fade", 1 - scores[i] / Math.max(scores[ranked[0]], 1e-9));
      cell.title = `${nameOf(i)}: ${percent(scores[i])}`;
      cell.setAttribute("aria-label", cell.title);
    });
    goHead(byRow.indexOf(ranked[0]), false);
  };

  const search = LabViews.choice("Find heads that look at", patterns.map((one) => one.name), showPattern);
  const names = sentences.map((one) => one.name);
  const choose = LabViews.choice("Sentence", names, showSentence);
  const large = element("div", { class: "view-large" }, title, LabViews.scroller("map", map));
  const reading = element("div", { class: "view-reading" }, sentenceBox, bars);
  stage.append(
    element("div", { class: "view-row" }, choose, search),
    element("label", {}, hideFirst, " all heads: hide the first token, the sink"),
    means,
    best,
    around,
    element("div", { class: "view-columns" }, large, reading),
    live,
  );
  showSentence(0);
  showPattern(0);
  LabViews.onScheme(drawOverview);
};
