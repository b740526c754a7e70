"use strict";
// Draws what display/slider.py has packed. The address's hash is the state: #slice=3&opacity=0.5&hide=0.2
const scene = JSON.parse(document.getElementById("scene").textContent);
const byId = (id) => document.getElementById(id);

function make(parent, kind, properties, ...children) {
  const element = Object.assign(document.createElement(kind), properties);
  element.append(...children);
  parent.append(element);
  return element;
}

function rgb(colour) {
  return [1, 3, 5].map((start) => parseInt(colour.slice(start, start + 2), 16));
}

function ofObject(number) { // neighbouring numbers get hues far apart
  const hue = (number * 0.618034) % 1 * 6, part = (shift) => {
    const k = (shift + hue) % 6;
    return Math.round(255 * (1 - 0.75 * Math.max(0, Math.min(k, 4 - k, 1))));
  };
  return [part(5), part(3), part(1)];
}

async function unpack(text, size) {
  const packed = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const buffer = await new Response(stream).arrayBuffer();
  return new {1: Uint8Array, 2: Uint16Array, 4: Uint32Array}[size](buffer);
}

const stage = byId("stage");
const picture = make(stage, "img", {alt: "slice of the image"});
const layers = scene.layers.map((layer) => ({
  ...layer,
  names: new Map(layer.classes.map((entry) => [entry.value, entry.name])),
  colours: new Map(layer.classes.map((entry) => [entry.value, rgb(entry.colour)])),
  hidden: new Set(), off: false, values: null,
  canvas: make(stage, "canvas", {width: scene.width, height: scene.height}),
}));
const bar = make(stage, "div", {id: "bar"}, scene.bar.label);
bar.style.width = `${100 * scene.bar.share}%`;

function slider(id, text, low, high, step, value) {
  const label = make(byId("controls"), "label", {}, text);
  const input = make(label, "input", {id, type: "range", min: low, max: high, step, value});
  const shown = make(label, "output", {});
  return {input, shown};
}

const last = scene.slices.length - 1;
const slice = slider("slice", "slice", 0, last, 1, Math.floor(last / 2));
slice.input.parentElement.hidden = last === 0;
if (last === 0) slice.input.parentElement.style.display = "none";
const opacity = slider("opacity", "labels", 0, 1, 0.05, scene.opacity);
if (!layers.length) opacity.input.parentElement.style.display = "none";
const brightness = slider("brightness", "brightness", 0.2, 3, 0.05, 1);
const contrast = slider("contrast", "contrast", 0.2, 5, 0.05, 1);
const zoom = slider("zoom", "zoom", 1, 8, 0.5, 1);

layers.forEach((layer, index) => {
  const title = make(byId("legend"), "label", {});
  const whole = make(title, "input", {type: "checkbox", checked: true});
  make(title, "b", {}, layer.name);
  whole.addEventListener("change", () => { layer.off = !whole.checked; draw(layer); });
  layer.classes.forEach((entry) => {
    const label = make(byId("legend"), "label", {});
    const box = make(label, "input", {type: "checkbox", checked: true});
    make(label, "span", {className: "swatch"}).style.background = entry.colour;
    label.append(entry.name);
    box.dataset.key = `${index}.${entry.value}`;
    box.addEventListener("change", () => {
      layer.hidden[box.checked ? "delete" : "add"](entry.value);
      draw(layer);
    });
  });
});

function draw(layer) {
  if (!layer.values) return;
  const context = layer.canvas.getContext("2d");
  const pixels = context.createImageData(scene.width, scene.height);
  const known = new Map();
  layer.values.forEach((value, place) => {
    if (value === 0 || layer.off || layer.hidden.has(value)) return;
    let colour = known.get(value);
    if (!colour) known.set(value, colour = layer.colours.get(value) || ofObject(value));
    pixels.data.set(colour, 4 * place);
    pixels.data[4 * place + 3] = 255;
  });
  context.putImageData(pixels, 0, 0);
}

let wanted = 0;
async function show() {
  const number = Number(slice.input.value), turn = ++wanted;
  const unpacked = await Promise.all(layers.map((layer) => unpack(layer.slices[number], layer.size)));
  if (turn !== wanted) return; // the slider has moved on
  picture.src = scene.slices[number];
  layers.forEach((layer, index) => { layer.values = unpacked[index]; draw(layer); });
  slice.shown.value = `${scene.numbers[number]} (0 to ${scene.depth - 1})`;
  document.body.dataset.slice = scene.numbers[number]; // drawn
}

function adjust() {
  layers.forEach((layer) => { layer.canvas.style.opacity = opacity.input.value; });
  picture.style.filter = `brightness(${brightness.input.value}) contrast(${contrast.input.value})`;
  stage.style.setProperty("--zoom", zoom.input.value);
  opacity.shown.value = `${Math.round(100 * opacity.input.value)} %`;
  zoom.shown.value = `${zoom.input.value}x`;
}

function pointed(event) {
  const box = stage.getBoundingClientRect();
  const x = Math.floor((event.clientX - box.left) / box.width * scene.width);
  const y = Math.floor((event.clientY - box.top) / box.height * scene.height);
  if (x < 0 || y < 0 || x >= scene.width || y >= scene.height) return "";
  const found = layers.filter((layer) => layer.values && !layer.off).map((layer) => {
    const value = layer.values[y * scene.width + x];
    return `${layer.name}: ${value}${layer.names.has(value) ? ` ${layer.names.get(value)}` : ""}`;
  });
  const place = [...(scene.depth > 1 ? [`z ${document.body.dataset.slice}`] : []), `y ${y * scene.factor}`,
                 `x ${x * scene.factor}`];
  return [place.join(", "), ...found].join("   ");
}

function fromAddress() {
  const state = new URLSearchParams(location.hash.slice(1));
  for (const control of [slice, opacity, brightness, contrast, zoom]) {
    if (state.has(control.input.id)) control.input.value = state.get(control.input.id);
  }
  for (const key of (state.get("hide") || "").split(",").filter(Boolean)) {
    const box = document.querySelector(`input[data-key="${CSS.escape(key)}"]`);
    if (box && box.checked) box.click();
  }
  adjust();
  return show();
}

function step(by) {
  slice.input.value = Number(slice.input.value) + by;
  show();
}

stage.style.aspectRatio = `1 / ${scene.aspect}`;
stage.style.setProperty("--tall", scene.aspect);
slice.input.addEventListener("input", show);
for (const control of [opacity, brightness, contrast, zoom]) control.input.addEventListener("input", adjust);
stage.addEventListener("pointermove", (event) => { byId("status").textContent = pointed(event); });
document.addEventListener("keydown", (event) => {
  if (event.target.tagName === "INPUT" && event.target !== slice.input) return;
  const by = {ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10}[event.key];
  if (by) { event.preventDefault(); step(by); }
});
window.addEventListener("hashchange", fromAddress);
fromAddress().catch((error) => { byId("status").textContent = `The labels cannot be drawn (${error}): use a newer browser.`; });
