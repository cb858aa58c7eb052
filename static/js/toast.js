// Short messages, one at a time: the newest. Errors stay until they are dismissed.
const STAY = 6000;
const box = document.getElementById("toasts");

export function toast({ text, level = "info", undo = "", change = null }) {
  const element = document.createElement("div");
  element.className = level === "error" ? "toast bad" : "toast";
  const words = document.createElement("span");
  words.textContent = text;
  element.append(words);
  if (undo) element.append(undoButton(undo, element));
  if (change) element.append(changeButton(change, element));
  element.append(dismissButton(element));
  box.replaceChildren(element);
  if (level !== "error") leave(element);
  return element;
}

function leave(element) {
  setTimeout(() => element.remove(), STAY);
}

function button(label, onClick) {
  const element = document.createElement("button");
  element.type = "button";
  element.className = "btn compact";
  element.textContent = label;
  element.addEventListener("click", onClick);
  return element;
}

function dismissButton(element) {
  const dismiss = button("✕", () => element.remove());
  dismiss.setAttribute("aria-label", "Dismiss");
  return dismiss;
}

function undoButton(url, element) {
  const undo = button("Undo", () => {
    element.remove();
    post(url, "#stage");
  });
  undo.dataset.undoNow = "";
  return undo;
}

function changeButton({ url, verdict, label }, element) {
  return button(label, () => {
    element.remove();
    post(url, "#history", { verdict });
  });
}

function post(url, target, values = {}) {
  const csrfmiddlewaretoken = document.querySelector("[name=csrfmiddlewaretoken]").value;
  htmx.ajax("POST", url, { target, swap: "outerHTML", values: { csrfmiddlewaretoken, ...values } });
}

for (const element of box.children) {
  element.querySelector("[data-dismiss]")?.addEventListener("click", () => element.remove());
  if (!element.classList.contains("bad")) leave(element);
}
