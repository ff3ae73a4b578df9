"use strict";

const screen = document.getElementById("screen");
const painter = screen.getContext("2d");
const show = (id, text) => { document.getElementById(id).textContent = text; };

let socket = null;
let expected = null;   // what the next binary message is
let waiting = false;   // an action is on its way: keys are not queued up
let sentAt = 0;
let held = null;
const arrivals = [];

function connect() {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  socket = new WebSocket(`${scheme}://${location.host}/play`);
  socket.binaryType = "blob";
  socket.onmessage = (event) => (typeof event.data === "string" ? onText(JSON.parse(event.data)) : onBinary(event.data));
  socket.onclose = () => {
    waiting = false;
    show("status", "connection lost; trying again ...");
    setTimeout(connect, 1000);
  };
}

function onText(message) {
  if (message.type === "hello") {
    screen.height = message.size[0];
    screen.width = message.size[1];
    makeButtons(message.actions);
    show("status", "ready");
  } else if (message.type === "frame") {
    expected = message;
  } else if (message.type === "video") {
    expected = message;
  } else if (message.type === "saved") {
    show("status", `saved to ${message.folder}`);
  } else if (message.type === "error") {
    waiting = false;
    show("status", message.message);
  }
}

async function onBinary(blob) {
  const message = expected;
  if (message.type === "video") {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `play.${message.format}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    show("status", `${message.format.toUpperCase()} of ${Math.ceil(message.bytes / 1024)} kB downloaded`);
    return;
  }
  const image = await createImageBitmap(blob);
  painter.drawImage(image, 0, 0);
  screen.dataset.steps = message.steps;
  show("steps", message.steps);
  show("action", message.action === null ? "-" : message.action + 1);
  if (waiting) {
    show("model", message.milliseconds);
    show("latency", Math.round(performance.now() - sentAt));
    measureRate();
  }
  waiting = false;
  if (held !== null && document.getElementById("hold").checked) act(held);
}

function measureRate() {
  arrivals.push(performance.now());
  while (arrivals.length > 20) arrivals.shift();
  const span = arrivals[arrivals.length - 1] - arrivals[0];
  if (arrivals.length > 1 && span > 0) show("rate", (1000 * (arrivals.length - 1) / span).toFixed(1));
}

function send(message) {
  if (socket && socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
}

function act(action) {
  if (waiting) return;
  waiting = true;
  sentAt = performance.now();
  send({ type: "action", action });
  const button = document.querySelector(`#actions button[data-action="${action}"]`);
  if (button) {
    button.classList.add("pressed");
    setTimeout(() => button.classList.remove("pressed"), 120);
  }
}

function makeButtons(count) {
  const group = document.getElementById("actions");
  group.replaceChildren();
  for (let action = 0; action < count; action++) {
    const button = document.createElement("button");
    button.textContent = action + 1;
    button.dataset.action = action;
    button.addEventListener("pointerdown", () => { held = action; act(action); });
    button.addEventListener("click", (event) => { if (event.detail === 0) act(action); });  // by keyboard
    group.append(button);
  }
}

addEventListener("pointerup", () => { held = null; });
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const digit = "123456789".indexOf(event.key);
  if (digit >= 0 && document.querySelector(`#actions button[data-action="${digit}"]`)) {
    held = digit;
    act(digit);
  } else if (event.key === "0") send({ type: "next" });
  else if (event.key === "r") send({ type: "restart" });
  else if (event.key === "s") send({ type: "save" });
});
addEventListener("keyup", (event) => { if (String(held + 1) === event.key) held = null; });
for (const button of document.querySelectorAll("[data-send]")) {
  button.addEventListener("click", () => send({ type: button.dataset.send }));
}
for (const button of document.querySelectorAll("[data-download]")) {
  button.addEventListener("click", () => send({ type: "download", format: button.dataset.download }));
}

connect();
