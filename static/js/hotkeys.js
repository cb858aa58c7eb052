// One key, one deed. Keys rest while somebody types, a dialog is open, or `blocked()` says so.
const TYPING = "input:not([type=checkbox], [type=radio]), textarea, select, [contenteditable]";

export function hotkeys(deeds, { blocked = () => false } = {}) {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.repeat) return;
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (event.target.closest?.(TYPING) || document.querySelector("dialog[open]")) return;
    const deed = deeds[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!deed || blocked()) return;
    if (deed(event) !== false) event.preventDefault();
  });
}
