// A text, coloured by its tokens or by the probability that a model gave them. The data:
//   groups: { name, variants }: texts to choose from, each cut in one or more ways
//   variants: { name, texts, ids, p, alternatives }, lists with an entry for each token. `p` and
//     `alternatives` ([text, probability], …) are there where a model has read the text.
//   labels: what the two choices are called
LabViews.kinds.tokens = (stage, data) => {
  const { element, percent, visible } = LabViews;
  const MOST = 12; // bits: from here on, the colour doesn't change
  let variant;
  let byProbability = data.groups[0].variants[0].p !== undefined;

  const surprise = (p) => (p ? Math.min(MOST, -Math.log2(p)) / MOST : 0);
  const nameOf = (i) => `“${visible(variant.texts[i])}”, id ${variant.ids[i]}`;
  const chance = (i) => {
    if (!variant.p) return "";
    return variant.p[i] === null ? ", no probability: nothing before it" : `, ${percent(variant.p[i])}`;
  };

  const box = element("div");
  const details = element("table", { class: "view-bars" });
  const live = LabViews.live();
  const shown = { variants: element("div"), colours: element("div") };

  const showToken = (i) => {
    const rank = (variant.alternatives?.[i] ?? []).map(([text, p]) => ({ text, p }));
    const own = variant.p ? variant.p[i] : null;
    if (own !== null && !rank.some(({ text }) => text === variant.texts[i])) {
      rank.push({ text: variant.texts[i], p: own });
    }
    const rows = rank.map(({ text, p }) => {
      const bar = element("i");
      bar.style.setProperty("--share", `${100 * p}%`);
      const mark = text === variant.texts[i] ? { class: "own" } : {};
      return element(
        "tr",
        mark,
        element("th", { scope: "row" }, visible(text)),
        element("td", { class: "bar" }, bar),
        element("td", {}, percent(p)),
      );
    });
    const caption = element("caption", {}, "What the model expected here");
    details.replaceChildren(...(rows.length ? [caption, element("tbody", {}, ...rows)] : []));
    const instead = rank.slice(0, 3).map(({ text, p }) => `“${visible(text)}” ${percent(p)}`);
    live.say(
      `Token ${i + 1} of ${variant.texts.length}: ${nameOf(i)}${chance(i)}.` +
        (instead.length ? ` Expected: ${instead.join(", ")}.` : ""),
    );
  };

  const colour = () => {
    [...box.firstChild.children].forEach((token, i) => {
      const share = byProbability ? 60 * surprise(variant.p[i]) : 32;
      token.className = byProbability ? "warm" : `hue${i % 6}`;
      token.style.setProperty("--share", `${share.toFixed(0)}%`);
    });
  };

  const showVariant = (next) => {
    variant = next;
    byProbability &&= variant.p !== undefined;
    const tokens = variant.texts.map((text, i) => {
      const label = `${nameOf(i)}${chance(i)}`;
      const lines = LabViews.printable(text).replace(/\n/g, "⏎\n") || "∅";
      return element("span", { role: "option", "aria-label": label }, lines);
    });
    const list = element("div", { class: "view-tokens", role: "listbox" }, ...tokens);
    list.setAttribute("aria-label", "tokens");
    list.setAttribute("aria-orientation", "horizontal");
    box.replaceChildren(list);
    colour();
    const go = LabViews.roving(list, tokens, 1, showToken);
    go(Math.min(1, tokens.length - 1), false);
  };

  const showGroup = (index) => {
    const { variants } = data.groups[index];
    const names = variants.map(({ name, ids }) => `${name} · ${ids.length}`);
    const pick = (i) => showVariant(variants[i]);
    const before = variants.findIndex((one) => one.name === variant?.name);
    const at = Math.max(0, before); // the same vocabulary as for the text before
    const choice = LabViews.choice(data.labels[1], names, pick, at);
    shown.variants.replaceChildren(...(variants.length > 1 ? [choice] : []));
    pick(at);
  };

  const texts = LabViews.choice(data.labels[0], data.groups.map((one) => one.name), showGroup);
  const ways = LabViews.choice("Colour", ["by probability", "by token"], (i) => {
    byProbability = i === 0;
    colour();
  });
  const key = element("p", { class: "view-note" });
  const scale = [1, 0.1, 0.01, 0.001, 0.0001].map((p) => {
    const sample = element("span", { class: "view-key warm" }, percent(p));
    sample.style.setProperty("--share", `${(60 * surprise(p)).toFixed(0)}%`);
    return sample;
  });
  key.append("probability: ", ...scale);
  if (data.groups.length > 1) stage.append(texts);
  stage.append(shown.variants);
  if (byProbability) stage.append(element("div", { class: "view-row" }, ways, key));
  stage.append(box, live, details);
  showGroup(0);
};
