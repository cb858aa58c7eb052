// Model text: code gets a copy button, very long answers fold.
const FOLD_AT = 0.75; // of the window's height

export async function copyText(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  // plain HTTP on another machine has no clipboard API
  const area = document.createElement("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

export function enrich(root) {
  for (const block of root.querySelectorAll?.(".prose pre:not([data-copy])") ?? []) {
    block.dataset.copy = "";
    block.tabIndex = 0; // it scrolls sideways: the keyboard must reach it
    const button = document.createElement("button");
    button.type = "button";
    button.className = "btn compact copy";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      await copyText(block.querySelector("code")?.textContent ?? "");
      button.textContent = "Copied";
      setTimeout(() => (button.textContent = "Copy"), 1500);
    });
    block.before(button);
  }
  for (const table of root.querySelectorAll?.(".prose table:not([tabindex])") ?? []) {
    if (table.scrollWidth > table.clientWidth) table.tabIndex = 0;
  }
  for (const fold of root.querySelectorAll?.(".folds:not([data-fold])") ?? []) {
    fold.dataset.fold = "";
    if (fold.scrollHeight < innerHeight * FOLD_AT) continue;
    fold.classList.add("folded");
    const button = document.createElement("button");
    button.type = "button";
    button.className = "btn compact";
    button.textContent = "Show the whole answer";
    button.addEventListener("click", () => {
      fold.classList.remove("folded");
      button.remove();
    });
    fold.after(button);
  }
}
