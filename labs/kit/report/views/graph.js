// A computation graph, step by step: numbers to the right, then gradients to the left. The data:
//   graphs: { name, nodes }; the nodes come after their inputs, and the last one is the result:
//     { name, operation, inputs, value, place }; the operation is +, ×, relu, or empty for a leaf;
//     inputs are indices; place is column and row

// The value of each node, from the leaves' numbers.
LabViews.forward = (nodes, leaves) => {
  const values = [];
  nodes.forEach(({ operation, inputs }, i) => {
    const [a, b] = inputs.map((source) => values[source]);
    const results = { "+": () => a + b, "×": () => a * b, relu: () => Math.max(a, 0) };
    values.push(operation ? results[operation]() : leaves[i]);
  });
  return values;
};

// The derivatives of a node with respect to its inputs.
LabViews.localSlopes = ({ operation, inputs }, values) => {
  const [a, b] = inputs.map((source) => values[source]);
  return { "+": [1, 1], "×": [b, a], relu: [a > 0 ? 1 : 0], "": [] }[operation];
};

// The steps of the backward pass: which node passes its gradient on, and all gradients after that.
LabViews.backward = (nodes, values) => {
  const gradients = nodes.map(() => null);
  gradients[nodes.length - 1] = 1;
  const steps = [{ node: nodes.length - 1, sent: [], gradients: [...gradients] }];
  for (let i = nodes.length - 1; i >= 0; i -= 1) {
    if (!nodes[i].inputs.length || gradients[i] === null) continue;
    const slopes = LabViews.localSlopes(nodes[i], values);
    const sent = nodes[i].inputs.map((to, k) => ({ to, slope: slopes[k], amount: gradients[i] * slopes[k] }));
    for (const { to, amount } of sent) gradients[to] = (gradients[to] ?? 0) + amount;
    steps.push({ node: i, sent, gradients: [...gradients] });
  }
  return steps;
};

LabViews.kinds.graph = (stage, data) => {
  const { element } = LabViews;
  const WIDE = 112; // pixels of a column
  const HIGH = 84; // of a row
  const BOX = [88, 58];
  const show = (x) => String(Number(x.toPrecision(4))).replace("-", "−");
  const signed = (x) => (x < 0 ? `(${show(x)})` : show(x));
  let nodes = [];
  let leaves = []; // the numbers of the leaves, by node
  let values = [];
  let steps = []; // { kind, node, … }
  let step = 0;

  const svg = element("svg", { class: "view-graph", role: "img" });
  const live = LabViews.live();
  const sliders = element("div", { class: "view-row" });

  const result = () => nodes.length - 1;
  const formula = ({ operation, inputs }, word) =>
    inputs.length === 1 ? `${operation}(${word(inputs[0])})` : `${word(inputs[0])} ${operation} ${word(inputs[1])}`;

  const compute = () => {
    values = LabViews.forward(nodes, leaves);
    const forward = nodes.flatMap((node, i) => (node.inputs.length ? [{ kind: "forward", node: i }] : []));
    const backward = LabViews.backward(nodes, values).map((one) => ({ kind: "backward", ...one }));
    steps = [{ kind: "start", node: -1 }, ...forward, ...backward];
  };

  const known = (i) => {
    const now = steps[step];
    return !nodes[i].inputs.length || now.kind === "backward" || (now.kind === "forward" && i <= now.node);
  };

  const words = () => {
    const { kind, node, sent } = steps[step];
    if (kind === "start") return "The leaves have their numbers. Step forward to compute the rest.";
    const { name } = nodes[node];
    if (kind === "forward") {
      const numbers = formula(nodes[node], (i) => signed(values[i]));
      return `Forward: ${name} = ${formula(nodes[node], (i) => nodes[i].name)} = ${numbers} = ${show(values[node])}.`;
    }
    if (!sent.length) return `Backward starts at the result: the derivative of ${name} with respect to itself is 1.`;
    const gradient = steps[step].gradients[node];
    const parts = sent.map(({ to, slope, amount }) => {
      return `${nodes[to].name} gets ${show(gradient)} · ${signed(slope)} = ${show(amount)}`;
    });
    return `Backward: ${name} has the gradient ${show(gradient)} and passes it on: ${parts.join("; ")}.`;
  };

  const center = (i) => {
    const rows = nodes.map((node) => node.place[1]);
    const [column, row] = nodes[i].place;
    return [column * WIDE + WIDE / 2, (row - Math.min(...rows)) * HIGH + HIGH / 2];
  };

  const arrow = (from, to, bend, active) => {
    const [x0, y0] = center(from);
    const [x1, y1] = center(to);
    const start = x0 + BOX[0] / 2;
    const end = x1 - BOX[0] / 2;
    const middle = (start + end) / 2;
    const curve = `M${start} ${y0}Q${middle} ${(y0 + y1) / 2 + bend} ${end - 5} ${y1}`;
    const head = `M${end - 7} ${y1 - 4}L${end} ${y1}L${end - 7} ${y1 + 4}Z`;
    const path = element("path", { d: curve });
    return element("g", { class: active ? "arrow active" : "arrow" }, path, element("path", { class: "head", d: head }));
  };

  const box = (node, i) => {
    const [x, y] = center(i);
    const now = steps[step];
    const gradient = now.gradients?.[i];
    const frame = element("rect", { x: x - BOX[0] / 2, y: y - BOX[1] / 2, width: BOX[0], height: BOX[1], rx: 8 });
    const line = (dy, name, words) => element("text", { x, y: y + dy, class: name }, words);
    const title = node.inputs.length ? `${node.name} = ${formula(node, (k) => nodes[k].name)}` : node.name;
    const kind = i === now.node ? "node active" : node.inputs.length ? "node" : "node leaf";
    const number = known(i) ? show(values[i]) : "?";
    const slope = gradient === null || gradient === undefined ? "" : `grad ${show(gradient)}`;
    return element("g", { class: kind }, frame, line(-13, "name", title), line(5, "value", number), line(22, "grad", slope));
  };

  const draw = () => {
    const columns = Math.max(...nodes.map((node) => node.place[0])) + 1;
    const rows = nodes.map((node) => node.place[1]);
    const width = columns * WIDE;
    const height = (Math.max(...rows) - Math.min(...rows) + 1) * HIGH;
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.style.minWidth = `${0.82 * width}px`;
    svg.style.maxWidth = `${1.3 * width}px`;
    const now = steps[step];
    const arrows = nodes.flatMap(({ inputs }, i) =>
      inputs.map((source, k) => {
        const twice = inputs.length === 2 && inputs[0] === inputs[1];
        return arrow(source, i, twice ? 26 * (2 * k - 1) : 0, i === now.node);
      }),
    );
    svg.replaceChildren(...arrows, ...nodes.map(box));
    svg.setAttribute("aria-label", `computation graph of ${nodes[result()].name}, step ${step} of ${steps.length - 1}`);
    live.say(`Step ${step} of ${steps.length - 1}. ${words()}`);
    back.disabled = step === 0;
    next.disabled = step === steps.length - 1;
  };

  const button = (label, move) => {
    const made = element("button", { type: "button" }, label);
    made.addEventListener("click", () => {
      input.set(Math.min(steps.length - 1, Math.max(0, move())));
      step = Number(input.value);
      draw();
    });
    return made;
  };
  const { box: slider, input } = LabViews.slider(
    "step",
    { min: 0, max: 1, step: 1, value: 0 },
    (value) => `${value} of ${Math.max(0, steps.length - 1)}`,
    (value) => {
      step = value;
      draw();
    },
  );
  const back = button("Back", () => step - 1);
  const next = button("Next", () => step + 1);

  const open = (graph) => {
    nodes = graph.nodes;
    leaves = nodes.map((node) => node.value);
    const controls = nodes.flatMap(({ name, inputs, value }, i) => {
      if (inputs.length) return [];
      const limits = { min: value - 5, max: value + 5, step: 0.5, value };
      const change = (number) => {
        leaves[i] = number;
        compute();
        draw();
      };
      return [LabViews.slider(name, limits, show, change).box];
    });
    sliders.replaceChildren(...controls);
    compute();
    input.max = steps.length - 1;
    step = 0;
    input.set(0);
    draw();
  };
  const names = data.graphs.map((graph) => graph.name);
  const choose = LabViews.choice("Graph", names, (i) => open(data.graphs[i]));
  const row = element("div", { class: "view-row" }, back, next, slider);
  stage.append(choose, row, live, LabViews.scroller("graph", svg), sliders);
  open(data.graphs[0]);
};
