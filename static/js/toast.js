// Short messages at the lower edge. Errors stay until they are dismissed.
const STAY = 6000;
const box = document.getElementById("toasts");

export function toast({ text, level = "info", undo = "" }) {
  const element = document.createElement("div");
  element.className = level === "error" ? "toast bad" : "toast";
  const words = document.createElement("span");
  words.textContent = text;
  element.append(words);
  if (undo) element.append(undoButton(undo, element));
  element.append(dismissButton(element));
  box.append(element);
  while (box.children.length > 3) box.firstElementChild.remove();
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
    const csrfmiddlewaretoken = document.querySelector("[name=csrfmiddlewaretoken]").value;
    htmx.ajax("POST", url, { target: "#stage", swap: "outerHTML", values: { csrfmiddlewaretoken } });
  });
  undo.dataset.undoNow = "";
  return undo;
}

for (const element of box.children) {
  element.querySelector("[data-dismiss]")?.addEventListener("click", () => element.remove());
  if (!element.classList.contains("bad")) leave(element);
}
