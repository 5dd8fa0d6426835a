// Attention on five words, computed in the page. The data:
//   words: { word, q, k, v }, two numbers each; sentence: five indices of words

// The scores of a query, its weights, and its output. `last` is the last key that it may look at.
LabViews.attend = (query, tokens, last) => {
  const scores = tokens.map(({ k }) => (query.q[0] * k[0] + query.q[1] * k[1]) / Math.SQRT2);
  const powers = scores.map((score, i) => (i <= last ? Math.exp(score) : 0));
  const sum = powers.reduce((total, power) => total + power, 0);
  const weights = powers.map((power) => power / sum);
  const mix = (axis) => tokens.reduce((total, { v }, i) => total + weights[i] * v[axis], 0);
  return { scores, powers, sum, weights, output: [mix(0), mix(1)] };
};

LabViews.kinds.five_words = (stage, data) => {
  const { element } = LabViews;
  const chosen = [...data.sentence];
  let query = 3;
  let causal = false;

  const number = (value) => Number(value.toFixed(2)).toString();
  const pair = ([a, b]) => `(${number(a)}, ${number(b)})`;
  const names = ["first", "second", "third", "fourth", "fifth"];

  const pickers = chosen.map((word, i) => {
    const select = element("select", { "aria-label": `${names[i]} word` });
    data.words.forEach(({ word: text }, j) => {
      const option = element("option", { value: j }, text);
      option.selected = j === word;
      select.append(option);
    });
    select.addEventListener("change", () => {
      chosen[i] = Number(select.value);
      show();
    });
    return select;
  });
  const box = element("input", { type: "checkbox" });
  box.addEventListener("change", () => {
    causal = box.checked;
    show();
  });
  const mask = element("label", {}, box, " causal mask");
  const controls = element("div", { class: "view-row" }, ...pickers, mask);

  const head = element("tr");
  const body = element("tbody");
  const table = element("table", { class: "view-five-words" }, element("thead", {}, head), body);
  const steps = element("ol");
  const title = element("p", { class: "view-title" });
  const live = LabViews.live();

  const selectQuery = (i) => {
    query = i;
    show();
  };

  const showTable = (tokens) => {
    const columns = ["query", ...tokens.map(({ word }) => word), "output"];
    head.replaceChildren(...columns.map((text) => element("th", { scope: "col" }, text)));
    const rows = tokens.map((token, i) => {
      const { weights, output } = LabViews.attend(token, tokens, causal ? i : tokens.length);
      const button = element("button", { type: "button", "aria-pressed": String(i === query) });
      button.append(token.word);
      button.addEventListener("click", () => selectQuery(i));
      const cells = weights.map((weight, j) => {
        const hidden = causal && j > i;
        const cell = element("td", {}, hidden ? "–" : number(weight));
        cell.style.setProperty("--share", `${(32 * weight).toFixed(0)}%`);
        return cell;
      });
      const first = element("th", { scope: "row" }, button);
      return element("tr", {}, first, ...cells, element("td", {}, pair(output)));
    });
    const focused = body.contains(document.activeElement);
    body.replaceChildren(...rows);
    if (focused) rows[query].querySelector("button").focus();
  };

  const showSteps = (tokens) => {
    const token = tokens[query];
    const last = causal ? query : tokens.length - 1;
    const { scores, powers, sum, weights, output } = LabViews.attend(token, tokens, last);
    title.textContent = `The query of “${token.word}” is ${pair(token.q)}.`;
    const seen = tokens.slice(0, last + 1);
    const list = (text) => seen.map(text).join(", ");
    const lines = [
      `Scores, q · k / √2: ${list(({ word, k }, i) => `${word} ${pair(k)} → ${number(scores[i])}`)}`,
      `Powers, e to the score: ${list(({ word }, i) => `${word} ${number(powers[i])}`)}`,
      `Weights, divided by their sum ${number(sum)}: ` +
        list(({ word }, i) => `${word} ${number(weights[i])}`),
      `Output, the weighted average of the values: ${pair(output)}`,
    ];
    steps.replaceChildren(...lines.map((text) => element("li", {}, text)));
    const most = Math.max(...weights);
    const best = seen.filter((_, i) => weights[i] > most - 0.01).map(({ word }) => word);
    const each = best.length > 1 ? " each" : "";
    live.say(`“${token.word}” looks at ${best.join(", ")}, weight ${number(most)}${each}.`);
  };

  const show = () => {
    const tokens = chosen.map((i) => data.words[i]);
    showTable(tokens);
    showSteps(tokens);
  };

  stage.append(controls, LabViews.scroller("weights", table), title, steps, live);
  show();
};
