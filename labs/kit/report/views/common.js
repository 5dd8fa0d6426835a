// Helpers of all views. A view is a function (stage, data) in LabViews.kinds:
// `stage` is an empty element of the page, `data` is what the run saved.
const LabViews = { kinds: {}, count: 0 };

// Create an element: element("p", { class: "note" }, "text", another, …).
LabViews.element = (tag, attributes = {}, ...children) => {
  const svg = ["svg", "g", "rect", "path", "line", "text", "circle"].includes(tag);
  const made = svg
    ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
};

// Read what pack_array in views.py wrote.
LabViews.unpack = ({ type, base64 }) => {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  if (type === "uint8") return bytes;
  const view = new DataView(bytes.buffer);
  return Uint16Array.from({ length: bytes.length / 2 }, (_, i) => view.getUint16(2 * i, true));
};

// A probability in words: 12 %, 1.2 %, 0.0034 %.
LabViews.percent = (p) => {
  if (p === null || p === undefined) return "–";
  const shown = 100 * p;
  if (shown >= 9.95 || shown === 0) return `${shown.toFixed(0)} %`;
  return `${shown >= 0.095 ? shown.toFixed(1) : shown.toPrecision(2)} %`;
};

LabViews.thousands = (n) => n.toString().replace(/\B(?=(\d{3})+$)/g, ",");

// Show control characters, which a model may write, by their pictures; line ends stay.
LabViews.printable = (text) =>
  text.replace(/[\0-\x08\x0b-\x1f]/g, (letter) => String.fromCharCode(0x2400 + letter.charCodeAt(0)));

// Make everything of a token visible.
LabViews.visible = (text) =>
  LabViews.printable(text).replace(/ /g, "·").replace(/\n/g, "⏎").replace(/\t/g, "⇥") || "∅";

// A group of radio buttons. Calls pick(index) on every change.
LabViews.choice = (label, options, pick, chosen = 0) => {
  const { element } = LabViews;
  const name = `view-choice-${(LabViews.count += 1)}`;
  const group = element("fieldset", { class: "view-choice" }, element("legend", {}, label));
  options.forEach((option, i) => {
    const button = element("input", { type: "radio", name, value: i });
    button.checked = i === chosen;
    button.addEventListener("change", () => pick(i));
    group.append(element("label", {}, button, element("span", {}, option)));
  });
  return group;
};

// A slider with its name and value. `show(value)` words the value; calls `change` on every move.
LabViews.slider = (label, { min, max, step, value }, show, change) => {
  const { element } = LabViews;
  const input = element("input", { type: "range", min, max, step, value, "aria-label": label });
  const output = element("output", {});
  const update = () => {
    output.textContent = show(Number(input.value));
    input.setAttribute("aria-valuetext", output.textContent);
  };
  input.addEventListener("input", () => {
    update();
    change(Number(input.value));
  });
  input.set = (next) => {
    input.value = next;
    update();
  };
  update();
  const name = element("span", { class: "view-name", "aria-hidden": "true" }, label);
  const box = element("div", { class: "view-slider" }, name, output, input);
  return { box, input };
};

// Let the arrow keys move through `items`, of which Tab reaches one. `columns` is the width of a
// grid; 1 is a row. Calls select(index) when an item gets the focus, is clicked, or is pointed at.
LabViews.roving = (box, items, columns, select, events = ["focusin", "click", "pointerover"]) => {
  let current = 0;
  const go = (to, focus) => {
    items[current].tabIndex = -1;
    items[current].setAttribute("aria-selected", "false");
    current = to;
    items[to].tabIndex = 0;
    items[to].setAttribute("aria-selected", "true");
    if (focus) items[to].focus();
    select(to);
  };
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
  box.addEventListener("keydown", (event) => {
    const ends = { Home: 0, End: items.length - 1 };
    const to = event.key in ends ? ends[event.key] : current + steps[event.key];
    if (!(to >= 0 && to < items.length)) return;
    event.preventDefault();
    go(to, true);
  });
  const index = new Map(items.map((item, i) => [item, i]));
  const point = (event) => {
    const item = event.target.closest("[aria-selected]");
    if (item && index.has(item) && index.get(item) !== current) go(index.get(item), false);
  };
  for (const kind of events) box.addEventListener(kind, point);
  items.forEach((item, i) => {
    item.tabIndex = i ? -1 : 0;
    item.setAttribute("aria-selected", String(!i));
  });
  return go;
};

// A line that screen readers read when it changes, once the reader has stopped moving.
LabViews.live = () => {
  const line = LabViews.element("p", { class: "view-live", "aria-live": "polite" });
  let timer = 0;
  line.say = (text) => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      if (line.textContent !== text) line.textContent = text;
    }, 250);
  };
  return line;
};

// A box for something wide: it scrolls where the page is narrow, and then the keyboard reaches it.
LabViews.scroller = (label, child) => {
  const box = LabViews.element("div", { class: "view-scroll", role: "group", "aria-label": label });
  box.append(child);
  new ResizeObserver(() => {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }).observe(box);
  return box;
};

// Draw again when the page changes between light and dark.
LabViews.onScheme = (draw) => {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  new MutationObserver(draw).observe(document.documentElement, { attributes: true });
};
