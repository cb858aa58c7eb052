// Blind pairs: one key for each choice, and undo.
import { hotkeys } from "./hotkeys.js";

const form = document.getElementById("pair");
const undo = document.querySelector("#pair-undo button");
let sent = false;

const choose = (value) => () => form?.querySelector(`button[value="${value}"]`).click();
// a focused button or link keeps the space bar
const tie = (event) => (event.target.closest("a, button, summary") ? false : choose("tie")());

document.addEventListener("submit", () => {
  sent = true;
});
// the page comes back from the browser's cache
window.addEventListener("pageshow", () => {
  sent = false;
});

hotkeys(
  {
    1: choose("left"),
    ArrowLeft: choose("left"),
    2: choose("right"),
    ArrowRight: choose("right"),
    0: choose("tie"),
    " ": tie,
    s: choose("skip"),
    z: () => undo?.click(),
    Backspace: () => undo?.click(),
  },
  { blocked: () => sent },
);
