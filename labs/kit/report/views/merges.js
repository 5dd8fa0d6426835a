// Type a text and step through the merges of byte-pair encoding. The data:
//   text: the text at the start
//   vocabularies: { name, merges }: pairs of ids as uint16; the i-th makes the id 256 + i
LabViews.kinds.merges = (stage, data) => {
  const { element, visible } = LabViews;
  const MOST = 300; // characters: every step is computed at each key
  const WORD = /'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu;
  const encoder = new TextEncoder();
  const decoder = new TextDecoder("utf-8", { fatal: true });
  const vocabularies = data.vocabularies.map(({ name, merges }) => {
    const ids = LabViews.unpack(merges);
    const tokens = Array.from({ length: 256 }, (_, byte) => [byte]);
    const made = new Map();
    for (let i = 0; i < ids.length; i += 2) {
      made.set(ids[i] * 65536 + ids[i + 1], tokens.length);
      tokens.push([...tokens[ids[i]], ...tokens[ids[i + 1]]]);
    }
    return { name, tokens, made };
  });
  let vocabulary = vocabularies[0];
  let steps = []; // { words, pair, made, times }: the ids of each word after each merge

  const textOf = (id) => {
    const bytes = Uint8Array.from(vocabulary.tokens[id]);
    try {
      return decoder.decode(bytes);
    } catch {
      return `⟨${[...bytes].map((byte) => byte.toString(16).padStart(2, "0").toUpperCase()).join(" ")}⟩`;
    }
  };

  // Merge the earliest pair everywhere, until no pair has a merge.
  const encode = (text, { made }) => {
    let words = (text.match(WORD) ?? []).map((word) => [...encoder.encode(word)]);
    const all = [{ words }];
    for (;;) {
      let first = Infinity;
      for (const ids of words) {
        for (let i = 0; i + 1 < ids.length; i += 1) {
          first = Math.min(first, made.get(ids[i] * 65536 + ids[i + 1]) ?? Infinity);
        }
      }
      if (first === Infinity) return all;
      let times = 0;
      let pair;
      words = words.map((ids) => {
        const merged = [];
        for (let i = 0; i < ids.length; i += 1) {
          if (i + 1 < ids.length && made.get(ids[i] * 65536 + ids[i + 1]) === first) {
            pair = [ids[i], ids[i + 1]];
            times += 1;
            merged.push(first);
            i += 1;
          } else merged.push(ids[i]);
        }
        return merged;
      });
      all.push({ words, pair, made: first, times });
    }
  };

  const input = element("input", { type: "text", maxlength: MOST, spellcheck: "false" });
  input.value = data.text;
  const field = element("label", { class: "view-text" }, element("span", { class: "view-name" }, "Your text"), input);
  const box = element("div");
  const live = LabViews.live();
  const choices = element("div");
  const { box: slider, input: range } = LabViews.slider(
    "merges",
    { min: 0, max: 1, step: 1, value: 1 },
    (value) => `${value} of ${Math.max(steps.length - 1, 0)}`,
    () => show(),
  );

  const show = () => {
    const step = steps[Number(range.value)];
    const ids = step.words.flat();
    const items = ids.map((id, i) => {
      const classes = `hue${i % 6}${id === step.made ? " new" : ""}`;
      return element("span", { role: "option", class: classes, "aria-label": `“${visible(textOf(id))}”, id ${id}` }, visible(textOf(id)));
    });
    const list = element("div", { class: "view-tokens view-chips", role: "listbox", "aria-label": "tokens" }, ...items);
    list.setAttribute("aria-orientation", "horizontal");
    for (const item of items) item.style.setProperty("--share", "32%");
    const count = `${ids.length} token${ids.length === 1 ? "" : "s"}`;
    const text = step.pair
      ? `Merge ${step.made - 255} of the vocabulary: “${visible(textOf(step.pair[0]))}” + “${visible(textOf(step.pair[1]))}” → “${visible(textOf(step.made))}”, here ${step.times} ×. ${count}.`
      : `The bytes of the text: ${count}.`;
    box.replaceChildren(list);
    live.say(text);
    if (items.length) {
      LabViews.roving(list, items, 1, (i) => live.say(`Token ${i + 1}: “${visible(textOf(ids[i]))}”, id ${ids[i]}.`), ["click", "focusin"]);
    }
  };

  const update = () => {
    steps = encode(input.value, vocabulary);
    range.max = steps.length - 1;
    range.set(steps.length - 1);
    const names = vocabularies.map((one) => {
      const all = encode(input.value, one);
      return `${one.name} · ${all[all.length - 1].words.flat().length}`;
    });
    [...choices.querySelectorAll("label span")].forEach((label, i) => {
      label.textContent = names[i];
    });
    show();
  };

  const names = vocabularies.map((one) => one.name);
  choices.append(
    LabViews.choice("Learned from, and its number of tokens", names, (i) => {
      vocabulary = vocabularies[i];
      update();
    }),
  );
  input.addEventListener("input", update);
  const step = (by) => {
    range.set(Math.min(steps.length - 1, Math.max(0, Number(range.value) + by)));
    show();
  };
  const buttons = [["One merge back", -1], ["Next merge", 1]].map(([name, by]) => {
    const button = element("button", { type: "button" }, name);
    button.addEventListener("click", () => step(by));
    return button;
  });
  stage.append(field, choices, element("div", { class: "view-row" }, slider, ...buttons), box, live);
  update();
};
