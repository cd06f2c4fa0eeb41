

// Masks and crop are drawn over the picture; the text fields hold what is drawn, and are drawn as they are written.
function draw(area) {
  const sheet = document.getElementById("sheet");
  const still = document.getElementById("still");
  const field = { masks: document.getElementById("masks"), crop: document.getElementById("crop") };
  const said = document.getElementById("draw-said");
  const frameCrop = area.dataset.crop ? JSON.parse(area.dataset.crop) : null;
  const frameCropText = field.crop.value;
  const ofPixels = frameCrop !== null && !area.dataset.crop.includes(".");
  let masks = [];
  let open = [];
  let box = null;
  let cross = [0.5, 0.5];
  let grip = null;

  const isCrop = () => area.querySelector("[name=tool]:checked").value === "crop";
  const clamp = (at) => at.map((share) => Math.min(1, Math.max(0, Math.round(share * 1e4) / 1e4)));
  const number = (share) => (Number.isInteger(share) ? share.toFixed(1) : String(share));
  const text = (polygon) => `[${polygon.map((at) => `[${at.map(number).join(", ")}]`).join(", ")}]`;

  // What the picture's part is of the camera's frame.
  function cropText([x, y, width, height]) {
    if (ofPixels) {
      const [left, top] = frameCrop;
      const [w, h] = [frameCrop[2], frameCrop[3]];
      const parts = [left + x * w, top + y * h, Math.max(1, width * w), Math.max(1, height * h)];
      return `[${parts.map(Math.round).join(", ")}]`;
    }
    const [left, top, w, h] = frameCrop ?? [0, 0, 1, 1];
    const corner = clamp([left + x * w, top + y * h]);
    const size = [Math.min(width * w, 1 - corner[0]), Math.min(height * h, 1 - corner[1])];
    return `[${[...corner, ...clamp(size)].map(number).join(", ")}]`;
  }

  function make(name, attributes, parent = sheet) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    parent.append(element);
  }

  function show() {
    const points = (polygon) => polygon.map(([x, y]) => `${1000 * x},${1000 * y}`).join(" ");
    const ratio = (still.naturalWidth || 4) / (still.naturalHeight || 3);
    const dot = ([x, y], name) => make("ellipse", { class: name, cx: 1000 * x, cy: 1000 * y, rx: 10, ry: 10 * ratio });
    sheet.replaceChildren();
    for (const polygon of masks) {
      make("polygon", { class: "mask", points: points(polygon) });
      polygon.forEach((at) => dot(at, "corner"));
    }
    make("polyline", { class: "open", points: points(open) });
    open.forEach((at) => dot(at, "corner first"));
    if (box) {
      const [[x0, y0], [x1, y1]] = box;
      const [x, y] = [Math.min(x0, x1), Math.min(y0, y1)];
      const [width, height] = [Math.abs(x1 - x0), Math.abs(y1 - y0)];
      make("rect", { class: "crop", x: 1000 * x, y: 1000 * y, width: 1000 * width, height: 1000 * height });
    }
    if (document.activeElement === sheet) {
      const [x, y] = cross.map((share) => 1000 * share);
      make("path", { class: "cross", d: `M${x - 30},${y}H${x + 30}M${x},${y - 30 * ratio}V${y + 30 * ratio}` });
    }
    const list = document.getElementById("drawn");
    list.replaceChildren(
      ...masks.map((polygon, at) => {
        const item = document.createElement("li");
        const remove = document.createElement("button");
        remove.type = "button";
        remove.textContent = `Remove mask ${at + 1}`;
        remove.addEventListener("click", () => change(() => masks.splice(at, 1)));
        item.append(remove, ` ${polygon.length} corners`);
        return item;
      }),
    );
    const crop = field.crop.value.trim();
    document.getElementById("lines").textContent =
      `[camera]\n${crop ? `crop = ${crop}\n` : ""}\n` +
      masks.map((polygon) => `[[camera.mask]]\npolygon = ${text(polygon)}\n`).join("");
  }

  function change(step) {
    step();
    field.masks.value = masks.map(text).join("\n");
    if (box) {
      const [[x0, y0], [x1, y1]] = box;
      const part = [Math.min(x0, x1), Math.min(y0, y1), Math.abs(x1 - x0), Math.abs(y1 - y0)];
      field.crop.value = part[2] > 0.01 && part[3] > 0.01 ? cropText(part) : frameCropText;
    }
    show();
  }

  function read() {
    try {
      const lines = field.masks.value.split("\n").filter((line) => line.trim());
      const read = lines.map((line) => JSON.parse(line));
      const isShare = (share) => typeof share === "number" && share >= 0 && share <= 1;
      const isPolygon = (polygon) =>
        Array.isArray(polygon) && polygon.length > 2 && polygon.every((at) => at.length === 2 && at.every(isShare));
      if (!read.every(isPolygon)) throw new Error("three corners or more, each two shares of the picture");
      masks = read;
      field.masks.setCustomValidity("");
    } catch (error) {
      field.masks.setCustomValidity(`A mask is [[x, y], [x, y], [x, y]]: ${error.message}`);
    }
    show();
  }

  function close() {
    if (open.length < 3) {
      said.textContent = "A mask has three corners or more.";
      return;
    }
    change(() => {
      masks.push(open);
      open = [];
    });
    said.textContent = `Mask ${masks.length} is closed. It holds once it is applied.`;
  }

  function isNear([x, y], [u, v]) {
    const edge = sheet.getBoundingClientRect();
    return Math.hypot((x - u) * edge.width, (y - v) * edge.height) < 14;
  }

  function corner(at) {
    if (isCrop()) {
      change(() => (box = box && box[0] === box[1] ? [box[0], at] : [at, at]));
      said.textContent = box[0] === box[1] ? "Now the opposite corner." : `The crop is ${field.crop.value}.`;
    } else if (open.length > 2 && isNear(open[0], at)) {
      close();
    } else {
      change(() => open.push(at));
      said.textContent = `Corner ${open.length}.`;
    }
  }

  function takeBack() {
    change(() => (isCrop() ? ((box = null), (field.crop.value = frameCropText)) : open.pop()));
    said.textContent = isCrop() ? "No crop is drawn." : `${open.length} corners.`;
  }

  function place(event) {
    const edge = sheet.getBoundingClientRect();
    return clamp([(event.clientX - edge.left) / edge.width, (event.clientY - edge.top) / edge.height]);
  }

  sheet.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    const at = place(event);
    cross = at;
    if (!isCrop() && open.length === 0) {
      for (const polygon of masks) {
        const found = polygon.findIndex((other) => isNear(other, at));
        if (found >= 0) grip = (to) => (polygon[found] = to);
      }
    }
    if (!grip) {
      corner(at);
      if (isCrop() && box[0] === box[1]) grip = (to) => (box = [box[0], to]);
    }
    if (grip) sheet.setPointerCapture(event.pointerId);
  });
  sheet.addEventListener("pointermove", (event) => grip && change(() => grip(place(event))));
  for (const end of ["pointerup", "pointercancel"]) {
    sheet.addEventListener(end, () => {
      if (grip && isCrop() && box[0] !== box[1]) said.textContent = `The crop is ${field.crop.value}.`;
      grip = null;
    });
  }
  sheet.addEventListener("keydown", (event) => {
    const step = event.shiftKey ? 0.002 : 0.02;
    const ways = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    const act = { Enter: () => corner(cross), " ": () => corner(cross), Backspace: takeBack, c: close, C: close }[event.key];
    if (ways[event.key]) cross = clamp(cross.map((share, axis) => share + ways[event.key][axis]));
    else if (act) act();
    else return;
    event.preventDefault();
    show();
  });
  for (const change of ["focus", "blur"]) sheet.addEventListener(change, show);
  still.addEventListener("load", show);
  field.masks.addEventListener("input", read);
  field.crop.addEventListener("input", () => {
    box = null;
    show();
  });
  document.getElementById("close-polygon").addEventListener("click", close);
  document.getElementById("take-back").addEventListener("click", takeBack);
  area.querySelector(".tools").hidden = false;
  sheet.setAttribute("tabindex", "0");
  sheet.setAttribute("role", "application");
  sheet.setAttribute("aria-label", "The picture, to draw on");
  sheet.setAttribute("aria-describedby", "draw-help");
  sheet.removeAttribute("aria-hidden");
  read();
}

const area = document.getElementById("draw");
if (area) draw(area);
