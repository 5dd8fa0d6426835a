// From logits to a choice: temperature, top-k, top-p and min-p, in this order, as you drag.
// The data:
//   names: each token's text, by its id
//   prompts: { name, step, levels }; `levels` are packed: by how many steps each token's logit is
//     below the largest one, by the token's id

// The ids from the likeliest token down, and the distance of their logits from the largest.
LabViews.readLogits = ({ step, levels }) => {
  const below = LabViews.unpack(levels);
  const ids = Uint32Array.from(below.keys()).sort((a, b) => below[a] - below[b] || a - b);
  return { ids, logits: Float64Array.from(ids, (id) => -step * below[id]) };
};

// Apply the settings to sorted logits: the tokens left, their probabilities, the entropy in nats.
LabViews.distribution = (logits, { temperature, k, p, part }) => {
  const scaled = logits.map((logit) => logit / temperature);
  const weights = scaled.map(Math.exp);
  let left = logits.length;
  if (k < left) while (left > k && scaled[left - 1] < scaled[k - 1]) left -= 1; // ties stay
  if (p < 1) {
    let all = 0;
    for (let i = 0; i < left; i += 1) all += weights[i];
    let before = 0; // what likelier tokens hold: a token stays while that is below p
    for (let i = 0; i < left; i += 1) {
      if (before / all >= p) left = i;
      before += weights[i];
    }
  }
  while (left > 1 && weights[left - 1] < part) left -= 1; // the largest weight is 1
  let total = 0;
  let mean = 0;
  for (let i = 0; i < left; i += 1) {
    total += weights[i];
    mean += weights[i] * scaled[i];
  }
  const entropy = Math.log(total) - mean / total;
  return { left, entropy, probabilities: weights.subarray(0, left).map((w) => w / total) };
};

// Uniform numbers from a seed (mulberry32), so that everybody sees the same draws.
LabViews.uniform = (seed) => () => {
  seed = (seed + 0x6d2b79f5) | 0;
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
};

LabViews.kinds.sampler = (stage, data) => {
  const { element, percent, slider, thousands, visible } = LabViews;
  const ROWS = 14; // tokens in the list
  const DRAWS = 10;
  const KS = [1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, Infinity];
  const OFF = { temperature: 1, k: Infinity, p: 1, part: 0 };
  const prompts = data.prompts.map((one) => {
    const { ids, logits } = LabViews.readLogits(one);
    return { name: one.name, ids, logits, own: LabViews.distribution(logits, OFF).probabilities };
  });
  let prompt = prompts[0];
  let settings = { ...OFF };
  let seed = 0;
  let draws = []; // uniform numbers, in their order on the line

  const nameOf = (rank) => visible(data.names[prompt.ids[rank]]);

  const power = ["e", element("sup", {}, "H"), ": equally likely tokens"];
  const numbers = [power, ["tokens left"], ["entropy H (nats)"]].map((name) => {
    const value = element("dd");
    return { value, box: element("div", {}, element("dt", {}, ...name), value) };
  });
  const bars = element("table", { class: "view-bars" });
  const line = element("div", { class: "view-line", "aria-hidden": "true" });
  const drawn = element("ol", { class: "view-drawn", "aria-label": "drawn tokens" });
  const legend = element("p", { class: "view-note" }, "In a token, · is a space and ⏎ a line end.");
  const live = LabViews.live();

  const showBars = ({ left, probabilities }) => {
    const { own } = prompt;
    const widest = Math.max(own[0], probabilities[0]);
    const rows = Array.from({ length: Math.min(ROWS, own.length) }, (_, rank) => {
      const share = rank < left ? probabilities[rank] : 0;
      const bar = element("i");
      bar.style.setProperty("--share", `${(100 * share) / widest}%`);
      const mark = element("b", { title: `the model's own: ${percent(own[rank])}` });
      mark.style.setProperty("--share", `${(100 * own[rank]) / widest}%`);
      return element(
        "tr",
        rank < left ? {} : { class: "cut" },
        element("th", { scope: "row" }, nameOf(rank)),
        element("td", { class: "bar" }, bar, mark),
        element("td", {}, rank < left ? percent(share) : "cut"),
      );
    });
    const caption = element("caption", {}, "next token; a stroke marks the model's own probability");
    bars.replaceChildren(caption, element("tbody", {}, ...rows));
  };

  // The tokens' probabilities end to end on the line from 0 to 1, and where the draws fall.
  const at = (made, left, width) => {
    made.style.left = `${100 * left}%`;
    made.style.width = `${100 * width}%`;
    return made;
  };
  const showLine = ({ probabilities }) => {
    const parts = [];
    const ranks = []; // of the draws
    let rest = null; // from this rank on, stretches are too narrow to see
    let seen = 0; // where it starts
    let start = 0;
    probabilities.forEach((share, rank) => {
      const end = rank === probabilities.length - 1 ? 1 : start + share;
      while (ranks.length < draws.length && draws[ranks.length] < end) ranks.push(rank);
      if (end - start >= 0.002) {
        const fits = 9 * nameOf(rank).length + 6 < (end - start) * line.clientWidth;
        const stretch = element("span", { class: `hue${rank % 6}` }, fits ? nameOf(rank) : "");
        parts.push(at(stretch, start, end - start));
      } else if (rest === null) {
        rest = rank;
        seen = start;
      }
      start = end;
    });
    if (rest !== null) {
      const others = `${thousands(probabilities.length - rest)} others`;
      const fits = 9 * others.length + 6 < (1 - seen) * line.clientWidth;
      parts.push(at(element("span", {}, fits ? others : ""), seen, 1 - seen));
    }
    const marks = draws.map((u) => at(element("b", {}, "▲"), u, 0));
    line.replaceChildren(...parts, ...marks);
    const items = ranks.map((rank) => element("li", { class: `hue${rank % 6}` }, nameOf(rank)));
    drawn.replaceChildren(...items);
    return ranks;
  };

  const show = () => {
    const found = LabViews.distribution(prompt.logits, settings);
    const { left, entropy, probabilities } = found;
    const many = Math.exp(entropy);
    numbers[0].value.textContent = many < 100 ? many.toFixed(2) : thousands(Math.round(many));
    numbers[1].value.textContent = thousands(left);
    numbers[2].value.textContent = entropy.toFixed(3);
    showBars(found);
    const ranks = showLine(found);
    const quoted = (rank) => `“${nameOf(rank)}”`;
    const of = draws.length ? ` Drawn: ${ranks.map(quoted).join(", ")}.` : "";
    live.say(
      `${thousands(left)} of ${thousands(data.names.length)} tokens left, as spread as ` +
        `${numbers[0].value.textContent} equally likely tokens. Likeliest: ${quoted(0)}, ` +
        `${percent(probabilities[0])}.${of}`,
    );
  };

  const off = (value, none) => (value === none ? "off" : String(value));
  const set = (name) => (value) => {
    settings[name] = name === "k" ? KS[value] : value;
    show();
  };
  const last = KS.length - 1;
  const sliders = [
    slider("temperature", { min: 0.1, max: 3, step: 0.05, value: 1 }, String, set("temperature")),
    slider("top-k", { min: 0, max: last, step: 1, value: last }, (i) => off(KS[i], Infinity), set("k")),
    slider("top-p", { min: 0.05, max: 1, step: 0.01, value: 1 }, (p) => off(p, 1), set("p")),
    slider("min-p", { min: 0, max: 0.5, step: 0.01, value: 0 }, (part) => off(part, 0), set("part")),
  ];
  const button = (text, act) => {
    const made = element("button", { type: "button" }, text);
    made.addEventListener("click", () => {
      act();
      show();
    });
    return made;
  };
  const draw = button(`Draw ${DRAWS} first tokens`, () => {
    seed += 1;
    draws = Array.from({ length: DRAWS }, LabViews.uniform(seed)).sort((a, b) => a - b);
  });
  const reset = button("Reset", () => {
    settings = { ...OFF };
    draws = [];
    [1, last, 1, 0].forEach((value, i) => sliders[i].input.set(value));
  });
  const choose = LabViews.choice("The text so far", prompts.map((one) => one.name), (i) => {
    prompt = prompts[i];
    show();
  });
  const controls = element(
    "div",
    { class: "view-controls" },
    ...sliders.map((one) => one.box),
    element("dl", { class: "view-numbers" }, ...numbers.map((one) => one.box)),
    element("div", { class: "view-row" }, draw, reset),
  );
  stage.append(choose, element("div", { class: "view-columns" }, controls, bars), line, drawn, legend, live);
  show();
};
