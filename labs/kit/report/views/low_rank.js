// A matrix, a product of two thin ones, and their sum: move the rank, point at an entry. The data:
//   base: W, a list of rows
//   matrices: { name, b, a }; the products are B·A, b has a row for each row of W, a has one for
//     each direction, the most important direction first

// The product of the first `rank` columns of b and rows of a.
LabViews.lowRank = ({ b, a }, rank) =>
  b.map((row) =>
    a[0].map((_, j) => row.slice(0, rank).reduce((sum, value, k) => sum + value * a[k][j], 0)),
  );

LabViews.kinds.low_rank = (stage, data) => {
  const { element, percent } = LabViews;
  const { base, matrices } = data;
  const height = base.length;
  const width = base[0].length;
  let chosen = 0;
  let rank = 1;
  let probe = [Math.floor(height / 2), Math.floor(width / 2)]; // row and column

  const write = (value) => (Math.abs(value) < 0.005 ? 0 : value).toFixed(2).replace("-", "−");
  const squares = (matrix) => matrix.flat().reduce((sum, value) => sum + value * value, 0);
  const most = (matrix) => Math.max(...matrix.flat().map(Math.abs));
  const limits = matrices.map((pair) => Math.max(most(base), most(LabViews.lowRank(pair, pair.a.length))));

  const panels = ["W", "B A", "W + B A"].map((name) => {
    const svg = element("svg", { class: "view-cells", viewBox: `0 0 ${width} ${height}`, role: "img" });
    const cells = Array.from({ length: height * width }, (_, i) =>
      element("rect", { x: i % width, y: Math.floor(i / width), width: 1, height: 1 }),
    );
    const frame = element("rect", { class: "frame", width: 1, height: 1 });
    svg.append(...cells, frame);
    return { name, svg, cells, frame };
  });
  const maps = element(
    "div",
    { class: "view-columns view-matrices", tabindex: "0", role: "application" },
    ...panels.map(({ name, svg }) => element("div", {}, element("p", { class: "view-title" }, name), svg)),
  );
  maps.setAttribute("aria-label", "matrices: arrow keys move the entry whose numbers are shown");

  const numbers = ["numbers in A and B", "numbers in ΔW", "share of ΔW's sum of squares", "the framed entry"].map(
    (name) => {
      const value = element("dd");
      return { value, box: element("div", {}, element("dt", {}, name), value) };
    },
  );
  const live = LabViews.live();

  const show = () => {
    const pair = matrices[chosen];
    const product = LabViews.lowRank(pair, rank);
    const sum = base.map((row, i) => row.map((value, j) => value + product[i][j]));
    const [i, j] = probe;
    [base, product, sum].forEach((matrix, panel) => {
      const { name, svg, cells, frame } = panels[panel];
      matrix.flat().forEach((value, cell) => {
        cells[cell].setAttribute("class", value < 0 ? "hue0" : "hue1");
        cells[cell].setAttribute("fill-opacity", Math.min(1, Math.abs(value) / limits[chosen]).toFixed(3));
      });
      frame.setAttribute("x", j);
      frame.setAttribute("y", i);
      svg.setAttribute("aria-label", `${name}, ${height} rows and ${width} columns; the framed entry is ${write(matrix[i][j])}`);
    });
    const share = squares(product) / squares(LabViews.lowRank(pair, pair.a.length));
    const entry = `${write(base[i][j])} + ${write(product[i][j])} = ${write(sum[i][j])}`.replace("+ −", "− ");
    const values = [`${rank * (height + width)}`, `${height * width}`, percent(share), entry];
    numbers.forEach(({ value }, at) => (value.textContent = values[at]));
    live.say(
      `${pair.name}, rank ${rank}: ${values[0]} numbers hold ${values[2]} of ΔW's sum of squares. ` +
        `Row ${i + 1}, column ${j + 1}: ${entry}.`,
    );
  };

  const limit = Math.max(...matrices.map(({ a }) => a.length));
  const { box: slider } = LabViews.slider("rank", { min: 0, max: limit, step: 1, value: rank }, String, (at) => {
    rank = at;
    show();
  });
  const choose = LabViews.choice("ΔW", matrices.map(({ name }) => name), (at) => {
    chosen = at;
    show();
  });

  const move = (row, column) => {
    const next = [Math.min(height - 1, Math.max(0, row)), Math.min(width - 1, Math.max(0, column))];
    if (next[0] === probe[0] && next[1] === probe[1]) return;
    probe = next;
    show();
  };
  for (const { svg } of panels) {
    svg.addEventListener("pointermove", (event) => {
      const { left, top, width: wide, height: high } = svg.getBoundingClientRect();
      move(Math.floor(((event.clientY - top) / high) * height), Math.floor(((event.clientX - left) / wide) * width));
    });
  }
  maps.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    const step = steps[event.key];
    if (!step) return;
    event.preventDefault();
    move(probe[0] + step[0], probe[1] + step[1]);
  });

  const controls = element("div", { class: "view-row" }, choose, slider);
  const readout = element("dl", { class: "view-numbers" }, ...numbers.map(({ box }) => box));
  stage.append(controls, maps, readout, live);
  show();
};
