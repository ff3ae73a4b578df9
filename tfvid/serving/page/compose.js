// Select tiles of images, place them over time, ask for a video. All pixels are those of the model's frames.
'use strict';

const $ = id => document.getElementById(id);
const state = { scene: null, pictures: [], image: 0, selected: new Set(), objects: [], object: -1, frame: 0, result: null };
window.composition = state; // for those who look from outside

const key = (row, column) => row * state.scene.grid.columns + column;
const tilesOf = set => [...set].map(k => [Math.floor(k / state.scene.grid.columns), k % state.scene.grid.columns]);
const count = () => Math.max(1, Math.min(64, Number($('count').value) || 1));
const tileSize = () => [state.scene.grid.width / state.scene.grid.columns, state.scene.grid.height / state.scene.grid.rows];

function pixelOf(canvas, event) {
  const box = canvas.getBoundingClientRect();
  return [(event.clientX - box.left) * canvas.width / box.width, (event.clientY - box.top) * canvas.height / box.height];
}

function tileOf(canvas, event) {
  const [x, y] = pixelOf(canvas, event), [width, height] = tileSize(), grid = state.scene.grid;
  const row = Math.floor(y / height), column = Math.floor(x / width);
  return row >= 0 && row < grid.rows && column >= 0 && column < grid.columns ? [row, column] : null;
}

function frames(context, tiles, colour) {
  const [width, height] = tileSize();
  context.strokeStyle = colour;
  for (const [row, column] of tiles) context.strokeRect(column * width + .5, row * height + .5, width - 1, height - 1);
}

function drawSource() {
  const context = $('source').getContext('2d');
  context.drawImage(state.pictures[state.image], 0, 0);
  frames(context, tilesOf(state.selected), '#e63232');
  $('add').disabled = !state.selected.size;
}

// Middle of the object's tiles in its image.
function centre(object) {
  const [width, height] = tileSize(), n = object.tiles.length;
  const sum = object.tiles.reduce((a, t) => [a[0] + t[1], a[1] + t[0]], [0, 0]);
  return [(sum[0] / n + .5) * width, (sum[1] / n + .5) * height];
}

// Where the tiles of an object lie when its middle is at `place`: whole tiles, as the server has it.
function placed(object, place) {
  const [width, height] = tileSize(), [x, y] = centre(object), grid = state.scene.grid;
  const across = Math.round((place[0] - x) / width), down = Math.round((place[1] - y) / height);
  return object.tiles.map(t => [t[0] + down, t[1] + across, t])
    .filter(t => t[0] >= 0 && t[0] < grid.rows && t[1] >= 0 && t[1] < grid.columns);
}

function drawStage() {
  const canvas = $('stage'), context = canvas.getContext('2d'), [width, height] = tileSize();
  context.fillStyle = '#181818';
  context.fillRect(0, 0, canvas.width, canvas.height);
  if ($('initial').checked) {
    context.globalAlpha = .25;
    context.drawImage(state.pictures[state.image], 0, 0);
    context.globalAlpha = 1;
  }
  state.objects.forEach((object, number) => {
    const place = object.path[state.frame];
    if (!place) return;
    const tiles = placed(object, place);
    for (const [row, column, from] of tiles) {
      context.drawImage(state.pictures[object.image], from[1] * width, from[0] * height, width, height,
        column * width, row * height, width, height);
    }
    frames(context, tiles, number === state.object ? '#4682ff' : '#2c4d8f');
  });
  $('number').textContent = String(state.frame + 1);
}

function drawObjects() {
  $('objects').replaceChildren(...state.objects.map((object, number) => {
    const button = document.createElement('button');
    button.textContent = `object ${number + 1} (${object.path.filter(Boolean).length} frames)`;
    button.className = number === state.object ? 'chosen' : '';
    button.onclick = () => { state.object = number; refresh(); };
    return button;
  }));
}

function refresh() { drawSource(); drawObjects(); drawStage(); }

function chooseImage(number) {
  state.image = number;
  state.selected.clear();
  [...$('images').children].forEach((b, i) => { b.className = i === number ? 'chosen' : ''; });
  refresh();
}

function addObject() {
  const object = { image: state.image, tiles: tilesOf(state.selected), path: [] };
  object.path = Array.from({ length: count() }, (_, i) => i === 0 ? centre(object) : null);
  state.objects.push(object);
  state.object = state.objects.length - 1;
  state.selected.clear();
  refresh();
}

function setFrame(frame) {
  state.frame = Math.max(0, Math.min(count() - 1, frame));
  $('frame').value = String(state.frame);
  drawStage();
}

function setCount() {
  $('frame').max = String(count() - 1);
  for (const object of state.objects) {
    object.path = Array.from({ length: count() }, (_, i) => object.path[i] || null);
  }
  setFrame(state.frame);
  drawObjects();
}

// Dragging on a canvas with the mouse or a finger.
function drag(canvas, begin, move) {
  let on = false;
  canvas.addEventListener('pointerdown', e => { on = true; canvas.setPointerCapture?.(e.pointerId); begin(e); });
  canvas.addEventListener('pointermove', e => { if (on) move(e); });
  for (const end of ['pointerup', 'pointercancel']) canvas.addEventListener(end, () => { on = false; });
}

function wire() {
  let adding = true, grip = [0, 0];
  const toggle = e => {
    const tile = tileOf($('source'), e);
    if (!tile) return;
    if (adding) state.selected.add(key(...tile)); else state.selected.delete(key(...tile));
    drawSource();
  };
  drag($('source'), e => {
    const tile = tileOf($('source'), e);
    adding = !tile || !state.selected.has(key(...tile));
    toggle(e);
  }, toggle);
  const put = e => {
    const object = state.objects[state.object];
    if (!object) return;
    const [x, y] = pixelOf($('stage'), e);
    object.path[state.frame] = [x - grip[0], y - grip[1]];
    drawObjects();
    drawStage();
  };
  drag($('stage'), e => {
    const object = state.objects[state.object], tile = tileOf($('stage'), e), [x, y] = pixelOf($('stage'), e);
    const place = object && object.path[state.frame];
    const held = place && tile && placed(object, place).some(t => t[0] === tile[0] && t[1] === tile[1]);
    grip = held ? [x - place[0], y - place[1]] : [0, 0]; // a held object does not jump to the mouse
    put(e);
  }, put);
  $('add').onclick = addObject;
  $('unselect').onclick = () => { state.selected.clear(); drawSource(); };
  $('initial').onchange = drawStage;
  $('frame').oninput = e => setFrame(Number(e.target.value));
  $('count').onchange = setCount;
  $('empty').onclick = () => { if (state.objects[state.object]) state.objects[state.object].path[state.frame] = null; refresh(); };
  $('remove').onclick = () => { state.objects.splice(state.object, 1); state.object = state.objects.length - 1; refresh(); };
  $('generate').onclick = generate;
  $('save').onclick = save;
}

function controls() {
  return {
    initial: $('initial').checked ? [state.image] : [],
    num_frames: count(),
    objects: state.objects.map(({ image, tiles, path }) => ({ image, tiles, path: path.slice(0, count()) })),
    num_steps: Number($('steps').value) || 1,
    seed: Number($('seed').value) || 0,
  };
}

async function generate() {
  $('generate').disabled = true;
  $('status').textContent = 'generating ...';
  const start = performance.now();
  try {
    const response = await fetch('/generate', { method: 'POST', body: JSON.stringify(controls()) });
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.message);
    state.result = answer;
    play(0);
    const seconds = ((performance.now() - start) / 1000).toFixed(1);
    $('status').textContent = `${answer.frames[0].length} frames in ${seconds} s`;
  } catch (error) {
    $('status').textContent = `error: ${error.message}`;
  }
  $('generate').disabled = false;
}

let timer = 0;
function play(frame) {
  clearTimeout(timer);
  const { frames: samples, controls: pictures } = state.result;
  $('result').src = samples[0][frame % pictures.length];
  $('shown').src = pictures[frame % pictures.length];
  timer = setTimeout(() => play(frame + 1), 250);
}

function save() {
  const images = state.scene.images.map(i => i.source);
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([JSON.stringify({ images, ...controls() }, null, 1)], { type: 'application/json' }));
  link.download = 'controls.json';
  link.click();
  URL.revokeObjectURL(link.href);
}

async function open() {
  state.scene = await (await fetch('/scene')).json();
  const { width, height } = state.scene.grid;
  for (const canvas of [$('source'), $('stage')]) { canvas.width = width; canvas.height = height; }
  for (const [number, { source, png }] of state.scene.images.entries()) {
    const name = source.file || `clip ${source.clip} of ${source.split}`;
    const picture = new Image();
    picture.src = png;
    await picture.decode();
    state.pictures.push(picture);
    const button = document.createElement('button');
    button.title = name;
    button.append(Object.assign(new Image(), { src: png, alt: name }));
    button.onclick = () => chooseImage(number);
    $('images').append(button);
  }
  $('count').value = String(state.scene.num_frames);
  $('steps').value = String(state.scene.num_steps);
  wire();
  setCount();
  chooseImage(0);
  $('status').textContent = 'ready';
}

open().catch(error => { $('status').textContent = `error: ${error.message}`; });
