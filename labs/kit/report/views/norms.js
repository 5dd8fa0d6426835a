// A vector and its norms: move scale, shift and ε. The data:
//   vector: the numbers before scale and shift

// Scale and shift a vector and norm it, with γ = 1 and β = 0.
LabViews.norms = (vector, { scale, shift, eps }) => {
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const given = vector.map((value) => scale * value + shift);
  const mu = mean(given);
  const variance = mean(given.map((value) => (value - mu) ** 2));
  const square = mean(given.map((value) => value ** 2));
  const divide = (value, root) => (root ? value / root : 0);
  return {
    given,
    layer: given.map((value) => divide(value - mu, Math.sqrt(variance + eps))),
    rms: given.map((value) => divide(value, Math.sqrt(square + eps))),
    mean: mu,
    deviation: Math.sqrt(variance),
    size: Math.sqrt(square),
  };
};

LabViews.kinds.norms = (stage, data) => {
  const { element, slider } = LabViews;
  const { vector } = data;
  const HEIGHT = 96; // pixels of a row of bars
  const LEFT = 34;
  const TOP = 8;
  const RAISED = ["", ..."⁻⁰¹²³⁴⁵⁶⁷⁸⁹"];
  const start = { scale: 0, shift: 2, eps: -5 }; // scale and ε as powers of ten
  const settings = { scale: 1, shift: 2, eps: 1e-5 };
  let width = 600;

  const number = (value) => {
    const size = Math.abs(value);
    if (size === 0) return "0";
    if (size >= 0.01 && size < 10000) return Number(value.toPrecision(3)).toString();
    const [factor, exponent] = value.toExponential(1).split("e");
    const raised = [...exponent].map((sign) => RAISED["+-0123456789".indexOf(sign)]).join("");
    return factor === "1.0" ? `10${raised}` : `${factor} · 10${raised}`;
  };
  const size = (values) => Math.sqrt(values.reduce((sum, value) => sum + value ** 2, 0) / values.length);

  // A row of bars. `limit` is the value at its upper end.
  const bars = (values, limit, hue) => {
    const middle = TOP + HEIGHT / 2;
    const step = (width - LEFT) / values.length;
    const place = (value) => middle - (value / limit) * (HEIGHT / 2);
    const made = [
      element("line", { x1: LEFT, x2: width, y1: middle, y2: middle }),
      element("text", { x: LEFT - 5, y: TOP + 9, "text-anchor": "end" }, number(limit)),
      element("text", { x: LEFT - 5, y: middle + 4, "text-anchor": "end" }, "0"),
    ];
    values.forEach((value, i) => {
      const end = place(Math.max(-limit, Math.min(limit, value)));
      made.push(
        element("rect", {
          class: hue,
          x: LEFT + (i + 0.15) * step,
          width: 0.7 * step,
          y: Math.min(end, middle),
          height: Math.max(Math.abs(end - middle), 0.5),
        }),
      );
    });
    return made;
  };

  const rows = [
    { key: "given", name: "the vector", hue: "hue4" },
    { key: "layer", name: "LayerNorm", hue: "hue0" },
    { key: "rms", name: "RMSNorm", hue: "hue1" },
  ].map((row) => {
    const title = element("p", { class: "view-title" });
    const svg = element("svg", { class: "view-norms", role: "img" });
    return { ...row, title, svg };
  });
  const names = ["mean", "standard deviation", "root of the mean square", "√ε"];
  const facts = names.map((name) => {
    const value = element("dd");
    return { value, box: element("div", {}, element("dt", {}, name), value) };
  });
  const live = LabViews.live();

  const show = () => {
    const result = LabViews.norms(vector, settings);
    const largest = Math.max(...result.given.map(Math.abs));
    const power = 10 ** Math.ceil(Math.log10(largest || 1));
    const limits = { given: largest <= power / 2 ? power / 2 : power, layer: 5, rms: 5 };
    for (const { key, name, hue, title, svg } of rows) {
      const values = result[key];
      title.textContent = `${name}: size ${number(size(values))}`;
      svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT + 2 * TOP}`);
      svg.setAttribute("aria-label", `${name}: ${values.map(number).join(", ")}`);
      svg.replaceChildren(...bars(values, limits[key], hue));
    }
    const read = [result.mean, result.deviation, result.size, Math.sqrt(settings.eps)];
    facts.forEach(({ value }, i) => (value.textContent = number(read[i])));
    live.say(
      `Scale ${number(settings.scale)}, shift ${number(settings.shift)}, ε ${number(settings.eps)}: ` +
        `LayerNorm has the size ${number(size(result.layer))}, RMSNorm ${number(size(result.rms))}.`,
    );
  };

  const sliders = [
    ["scale", { min: -4, max: 2, step: 0.1 }, (at) => 10 ** at],
    ["shift", { min: -5, max: 5, step: 0.1 }, (at) => at],
    ["eps", { min: -12, max: 0, step: 0.5 }, (at) => 10 ** at],
  ].map(([key, range, read]) =>
    slider(
      key === "eps" ? "ε" : key,
      { ...range, value: start[key] },
      (at) => number(read(at)),
      (at) => {
        settings[key] = read(at);
        show();
      },
    ),
  );
  const controls = element("div", { class: "view-row" }, ...sliders.map(({ box }) => box));
  const reset = element("button", { type: "button" }, "Reset");
  reset.addEventListener("click", () => {
    Object.assign(settings, { scale: 1, shift: 2, eps: 1e-5 });
    sliders.forEach(({ input }, i) => input.set(Object.values(start)[i]));
    show();
  });
  const readout = element("dl", { class: "view-numbers" }, ...facts.map(({ box }) => box));
  stage.append(controls, reset, ...rows.flatMap(({ title, svg }) => [title, svg]), readout, live);
  new ResizeObserver(() => {
    width = rows[0].svg.clientWidth || width;
    show();
  }).observe(rows[0].svg);
  show();
};
