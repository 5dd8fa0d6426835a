// A training: point at a step, or move the slider, to see loss, learning rate and a sample. The data:
//   losses: the training loss before each step
//   rates: the learning rate of each step
//   seen: { step, loss, text }: the validation loss and a sample after so many steps
//   baselines: { name, loss }
//   unit: of the losses
LabViews.kinds.curve = (stage, data) => {
  const { element, thousands } = LabViews;
  const { losses, rates, seen, baselines, unit } = data;
  const steps = losses.length;
  const MEAN = 5; // steps: a batch's loss alone jumps
  const HEIGHT = 300; // pixels of the losses; the learning rate is below
  const RATE = 46;
  const GAP = 26;
  const LEFT = 34;
  const RIGHT = 10;
  const LABEL = 15; // pixels between two labels
  const smooth = losses.map((_, i) => {
    const near = losses.slice(Math.max(0, i - (MEAN - 1) / 2), i + (MEAN + 1) / 2);
    return near.reduce((sum, loss) => sum + loss, 0) / near.length;
  });
  const known = [...smooth, ...seen.map((one) => one.loss), ...baselines.map((one) => one.loss)];
  const low = Math.min(...known) - 0.1;
  const high = Math.max(...known) + 0.1;
  const mostRate = Math.max(...rates);
  let logarithmic = true;
  let width = 600;
  let step = steps;

  const x = (at) => {
    const share = logarithmic ? Math.log(at) / Math.log(steps) : (at - 1) / (steps - 1 || 1);
    return LEFT + share * (width - LEFT - RIGHT);
  };
  const stepAt = (place) => {
    const share = Math.min(1, Math.max(0, (place - LEFT) / (width - LEFT - RIGHT)));
    return Math.round(logarithmic ? steps ** share : 1 + share * (steps - 1));
  };
  const y = (loss) => 8 + ((high - loss) / (high - low)) * (HEIGHT - 16);
  const yRate = (rate) => HEIGHT + GAP + RATE * (1 - rate / mostRate);
  const path = (values, place) =>
    values.map((value, i) => `${i ? "L" : "M"}${x(i + 1).toFixed(1)} ${place(value).toFixed(1)}`).join("");

  const svg = element("svg", { class: "view-curve", role: "img" });
  svg.setAttribute("aria-label", `loss in ${unit} and learning rate over ${steps} steps`);
  const cursor = element("g", { class: "cursor" });

  const grid = () => {
    const ticks = [];
    for (let loss = Math.ceil(low * 2) / 2; loss <= high; loss += high - low > 3 ? 1 : 0.5) {
      const place = y(loss);
      ticks.push(element("line", { x1: LEFT, x2: width - RIGHT, y1: place, y2: place }));
      ticks.push(element("text", { x: LEFT - 6, y: place + 4, "text-anchor": "end" }, loss.toFixed(1)));
    }
    const marks = logarithmic ? [1, 10, 100, 1000, 10000] : [0.25, 0.5, 0.75, 1].map((s) => Math.round(s * steps));
    for (const at of marks.filter((one) => one <= steps)) {
      const anchor = at > 0.9 * steps ? "end" : "middle";
      ticks.push(element("text", { x: x(at), y: HEIGHT + 15, "text-anchor": anchor }, thousands(at)));
    }
    return element("g", { class: "grid" }, ...ticks);
  };

  const lines = () => {
    let free = Infinity; // labels go up from the lowest line, each above the one before
    const sorted = [...baselines].sort((a, b) => a.loss - b.loss);
    const dotted = sorted.map(({ loss }) =>
      element("line", { x1: LEFT, x2: width - RIGHT, y1: y(loss), y2: y(loss) }),
    );
    const names = sorted.map(({ name, loss }) => {
      free = Math.min(y(loss) - 4, free - LABEL);
      const label = { x: logarithmic ? LEFT + 6 : width - RIGHT - 4, y: free };
      label["text-anchor"] = logarithmic ? "start" : "end";
      return element("text", label, `${name} ${loss.toFixed(2)}`);
    });
    // the names last: their background covers the dotted lines
    return element("g", { class: "baselines" }, ...dotted, ...names);
  };

  const draw = () => {
    const height = HEIGHT + GAP + RATE + 8;
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const points = seen.map(({ step: at, loss }) => element("circle", { cx: x(at), cy: y(loss), r: 4.5 }));
    const rate = element("text", { x: LEFT + 4, y: HEIGHT + GAP + 10 }, "learning rate");
    svg.replaceChildren(
      grid(),
      element("path", { class: "raw", d: path(losses, y) }),
      element("path", { class: "smooth", d: path(smooth, y) }),
      lines(),
      element("g", { class: "seen" }, ...points),
      element("path", { class: "rate", d: path(rates, yRate) }),
      element("g", { class: "grid" }, rate),
      cursor,
    );
    showCursor();
  };

  const showCursor = () => {
    const place = x(step);
    cursor.replaceChildren(
      element("line", { x1: place, x2: place, y1: 4, y2: HEIGHT + GAP + RATE }),
      element("circle", { cx: place, cy: y(smooth[step - 1]), r: 5 }),
      element("circle", { cx: place, cy: yRate(rates[step - 1]), r: 4 }),
    );
  };

  // What is known of a step.
  const names = [`training loss, mean of ${MEAN}`, "validation loss", "learning rate"];
  const numbers = names.map((name) => {
    const value = element("dd");
    return { value, box: element("div", {}, element("dt", {}, name), value) };
  });
  const title = element("p", { class: "view-title" });
  const sample = element("pre", { class: "view-sample" });
  const live = LabViews.live();
  const { box: slider, input } = LabViews.slider(
    "step",
    { min: 1, max: steps, step: 1, value: steps },
    (value) => `${thousands(value)} of ${thousands(steps)}`,
    (value) => showStep(value),
  );

  // The baselines were computed on validation text, so they compare with the loss on it.
  const passed = (loss) => {
    const below = baselines.filter((one) => loss < one.loss).map((one) => one.name);
    return below.length ? `below ${below.join(", ")}` : "above all baselines";
  };

  const showStep = (next) => {
    step = next;
    const last = seen.filter((one) => one.step <= step).at(-1);
    const rate = rates[step - 1].toPrecision(2);
    const validation = last ? last.loss.toFixed(3) : "–";
    numbers[0].value.textContent = smooth[step - 1].toFixed(3);
    numbers[1].value.textContent = validation;
    numbers[2].value.textContent = rate;
    title.textContent = last ? `Written after ${thousands(last.step)} steps` : "Nothing written yet";
    sample.textContent = last ? LabViews.printable(last.text) : "";
    const said = `Step ${thousands(step)}: training loss ${smooth[step - 1].toFixed(3)}; learning rate ${rate}.`;
    live.say(last ? `${said} Validation loss ${validation} after ${last.step} steps, ${passed(last.loss)}.` : said);
    showCursor();
  };

  const point = (event) => {
    if (event.type === "pointermove" && event.pointerType === "touch" && !event.buttons) return;
    const { left } = svg.getBoundingClientRect();
    input.set(stepAt(event.clientX - left));
    showStep(Number(input.value));
  };
  svg.addEventListener("pointermove", point);
  svg.addEventListener("pointerdown", point);
  const scale = LabViews.choice("Steps", ["logarithmic", "linear"], (i) => {
    logarithmic = i === 0;
    draw();
  });
  const readout = element("dl", { class: "view-numbers" }, ...numbers.map((one) => one.box));
  const heading = element("p", { class: "view-title" }, `Loss (${unit}); dots: validation`);
  stage.append(heading, svg, element("div", { class: "view-row" }, slider, scale), readout, title, sample, live);
  new ResizeObserver(() => {
    width = svg.clientWidth || width;
    draw();
  }).observe(svg);
  draw();
  showStep(steps);
};
