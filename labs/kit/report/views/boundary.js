// A decision boundary in training: move through the steps, point at a place to see the prediction.
// The data:
//   size, reach: of the maps, size × size points from −reach to reach, the lowest row first
//   points, classes: the training data, [x, y] and 0 or 1
//   steps: the training steps of the maps
//   networks: { name, maps, accuracies }; the maps are packed p(class 1), 0 to 255
LabViews.kinds.boundary = (stage, data) => {
  const { element, percent, thousands } = LabViews;
  const { size, reach, points, classes, steps, networks } = data;
  const SIDE = 480; // pixels of the drawing
  const COLOURS = [[0, 114, 178], [213, 94, 0]]; // of the classes
  const maps = networks.map((network) => network.maps.map(LabViews.unpack));
  let network = 0;
  let at = steps.length - 1;
  let probe = [Math.floor(size / 2), Math.floor(size / 2)]; // column and row
  let timer = 0;

  const canvas = element("canvas", { width: size, height: size, "aria-hidden": "true" });
  const svg = element("svg", { viewBox: `0 0 ${SIDE} ${SIDE}`, "aria-hidden": "true" });
  const map = element("div", { class: "view-plane", tabindex: "0", role: "application" }, canvas, svg);
  map.setAttribute("aria-label", "map: arrow keys move the place whose prediction is shown");
  const cross = element("circle", { class: "probe", r: 8 });
  const place = (value) => ((value + reach) / (2 * reach)) * SIDE;
  const dots = points.map(([x, y], i) => element("circle", { class: `class${classes[i]}`, cx: place(x), cy: SIDE - place(y), r: 3.4 }));
  svg.append(...dots, cross);

  const numbers = ["step", "accuracy on unseen points", "p(class 1) at the ring"].map((name) => {
    const value = element("dd");
    return { value, box: element("div", {}, element("dt", {}, name), value) };
  });
  const live = LabViews.live();

  const paint = () => {
    const context = canvas.getContext("2d");
    const image = context.createImageData(size, size);
    const levels = maps[network][at];
    for (let row = 0; row < size; row += 1) {
      for (let column = 0; column < size; column += 1) {
        const p = levels[row * size + column] / 255;
        const colour = COLOURS[p > 0.5 ? 1 : 0];
        const pixel = 4 * ((size - 1 - row) * size + column); // the canvas starts at the top
        for (let k = 0; k < 3; k += 1) image.data[pixel + k] = colour[k];
        image.data[pixel + 3] = Math.round(40 + 300 * Math.abs(p - 0.5));
      }
    }
    context.putImageData(image, 0, 0);
  };

  const show = () => {
    paint();
    const [column, row] = probe;
    const p = maps[network][at][row * size + column] / 255;
    const share = networks[network].accuracies[at];
    cross.setAttribute("cx", ((column + 0.5) / size) * SIDE);
    cross.setAttribute("cy", SIDE - ((row + 0.5) / size) * SIDE);
    numbers[0].value.textContent = thousands(steps[at]);
    numbers[1].value.textContent = percent(share);
    numbers[2].value.textContent = p.toFixed(2);
    const [x, y] = [column, row].map((i) => ((2 * i) / (size - 1) - 1) * reach);
    live.say(
      `${networks[network].name}, step ${thousands(steps[at])}: ${percent(share)} of unseen points. ` +
        `At (${x.toFixed(2)}, ${y.toFixed(2)}) class 1 has ${percent(p)}.`,
    );
  };

  const { box: slider, input } = LabViews.slider(
    "training step",
    { min: 0, max: steps.length - 1, step: 1, value: at },
    (i) => thousands(steps[i]),
    (i) => {
      at = i;
      show();
    },
  );
  const play = element("button", { type: "button" }, "Play");
  const stop = () => {
    clearInterval(timer);
    timer = 0;
    play.textContent = "Play";
  };
  play.addEventListener("click", () => {
    if (timer) {
      stop();
      return;
    }
    play.textContent = "Pause";
    at = at === steps.length - 1 ? 0 : at;
    input.set(at);
    show();
    timer = setInterval(() => {
      at += 1;
      input.set(at);
      show();
      if (at === steps.length - 1) stop();
    }, 700);
  });
  const choose = LabViews.choice("Activation", networks.map((one) => one.name), (i) => {
    network = i;
    show();
  });

  const move = (column, row) => {
    probe = [column, row].map((i) => Math.min(size - 1, Math.max(0, i)));
    show();
  };
  map.addEventListener("pointermove", (event) => {
    const { left, bottom, width, height } = map.getBoundingClientRect();
    move(Math.floor(((event.clientX - left) / width) * size), Math.floor(((bottom - event.clientY) / height) * size));
  });
  map.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    if (!(event.key in moves)) return;
    event.preventDefault();
    move(probe[0] + moves[event.key][0], probe[1] + moves[event.key][1]);
  });
  const readout = element("dl", { class: "view-numbers" }, ...numbers.map((one) => one.box));
  const key = element("p", { class: "view-note" }, element("b", { class: "class0" }, "●"), " class 0, ", element("b", { class: "class1" }, "●"), " class 1; the stronger the colour, the more certain the prediction.");
  const controls = element("div", { class: "view-controls" }, choose, element("div", { class: "view-row" }, play, slider), readout, key);
  stage.append(element("div", { class: "view-columns" }, map, controls), live);
  show();
};
