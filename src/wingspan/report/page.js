const root = document.documentElement;

/** A figure with the page's colours of the moment in place of their names, such as `var(--ink)`. */
function coloured(value, colours) {
  if (typeof value === "string") {
    return value.startsWith("var(") ? colours.getPropertyValue(value.slice(4, -1)).trim() : value;
  }
  if (Array.isArray(value)) return value.map((item) => coloured(item, colours));
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, coloured(item, colours)]));
}

function draw() {
  const colours = getComputedStyle(root);
  for (const [id, figure] of Object.entries(figures)) {
    // What is hidden has no width to be drawn in.
    if (!document.getElementById(id).clientWidth) continue;
    const { data, layout } = coloured(figure, colours);
    for (const button of document.querySelectorAll(`[data-figure="${id}"]`)) {
      if (button.ariaPressed === "false") data[button.dataset.trace].visible = "legendonly";
    }
    Plotly.react(id, data, layout, { responsive: true, displayModeBar: false });
  }
}

for (const button of document.querySelectorAll(".legend button")) {
  button.addEventListener("click", () => {
    button.ariaPressed = String(button.ariaPressed === "false");
    const shown = button.ariaPressed === "true" ? true : "legendonly";
    Plotly.restyle(button.dataset.figure, { visible: shown }, [Number(button.dataset.trace)]);
  });
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
// Paper is light, whatever the screen is.
for (const [moment, printed] of [["beforeprint", true], ["afterprint", false]]) {
  addEventListener(moment, () => {
    root.classList.toggle("printed", printed);
    draw();
  });
}
draw();
