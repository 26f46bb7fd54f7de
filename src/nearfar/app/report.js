"use strict";
const readJSON = (id) => JSON.parse(document.getElementById(id)?.textContent || "null");
const plots = [...document.querySelectorAll(".plot")];
const narrow = () => window.innerWidth < 640;

function paint() {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  return { ink: colour("--ink"), soft: colour("--soft"), grid: colour("--grid"), card: colour("--card"), line: colour("--line") };
}

function dressed(layout) {
  const c = paint();
  const axis = { gridcolor: c.grid, linecolor: c.line, tickfont: { color: c.soft }, fixedrange: narrow() };
  const merge = (given) => ({ ...given, ...axis, title: { ...given?.title, font: { color: c.soft, size: 13 } } });
  return {
    ...layout,
    font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: c.ink },
    xaxis: merge(layout.xaxis),
    yaxis: merge(layout.yaxis),
    hoverlabel: { bgcolor: c.card, bordercolor: c.line, font: { color: c.ink } },
  };
}

function draw() {
  for (const node of plots) {
    const figure = readJSON(node.dataset.figure);
    Plotly.react(node, figure.data, dressed(figure.layout), {
      responsive: true, displaylogo: false, displayModeBar: false, scrollZoom: false, doubleClick: "reset",
    });
  }
}

function peek(node, pictures) {
  const image = document.createElement("img");
  image.className = "peek";
  image.hidden = true;
  image.alt = "";
  document.body.append(image);
  node.on("plotly_hover", ({ points, event }) => {
    const source = pictures[points[0].customdata];
    if (!source) return;
    image.src = source;
    image.style.left = `${event.pageX + 18}px`;
    image.style.top = `${event.pageY + 18}px`;
    image.hidden = false;
  });
  node.on("plotly_unhover", () => { image.hidden = true; });
}

draw();
const map = document.querySelector("[data-pictures]");
if (map) peek(map, readJSON(map.dataset.pictures) || []);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
matchMedia("print").addEventListener("change", draw);
