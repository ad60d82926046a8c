// The figures: plotly draws them in the colours of the page, which follow light and dark.
"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figure-data").textContent);
  const shown = Object.fromEntries(Object.keys(figures).map((key) => [key, 0]));
  const config = {
    displaylogo: false,
    responsive: true,
    // Named one by one: plotly's own choice has a button that sends the figure to a server.
    modeBarButtons: [["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d", "toImage"]],
    doubleClick: "reset",
  };
  const narrow = matchMedia("(max-width: 40rem)");

  const read = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // Ticks of a logarithmic axis at whole numbers that a reader expects, by how much is shown.
  const chooseTicks = (axis, range) => {
    const [low, high] = [Math.min(...range), Math.max(...range)];
    const span = high - low;
    if (span < 0.3) return { tickvals: null, ticktext: null, tickmode: "auto" };
    const digits = span > 2.6 ? [1] : span > 0.8 ? [1, 2, 5] : [1, 1.5, 2, 3, 5, 7];
    const values = [];
    for (let power = Math.floor(low) - 1; power <= Math.ceil(high); power += 1) {
      for (const digit of digits) values.push(Number(`${digit}e${power}`));
    }
    return { tickmode: "array", tickvals: values, ticktext: values.map(formatTick) };
  };
  const formatTick = (value) => {
    if (value >= 1e-4 && value <= 1e5) return `${value}`;
    const [digits, power] = value.toExponential().split("e");
    return `${digits === "1" ? "" : `${digits}×`}10<sup>${Number(power)}</sup>`;
  };

  const dress = (figure) => {
    const text = JSON.stringify(figure)
      .replaceAll('"#000000"', JSON.stringify(read("--ink")))
      .replaceAll('"#808080"', JSON.stringify(read("--quiet")));
    const { data, layout } = JSON.parse(text);
    const rule = read("--rule");
    Object.assign(layout, {
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: read("--ink") },
      hoverlabel: {
        bgcolor: read("--paper"), bordercolor: rule, align: "left",
        font: { color: read("--ink"), size: 13 },
      },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: read("--quiet"), activecolor: read("--ink") },
    });
    if (narrow.matches) {
      // Names would cover each other; the pointer shows them. Two columns of legend, not one.
      for (const trace of data) if (trace.mode) trace.mode = trace.mode.replace("+text", "");
      Object.assign(layout.legend, {
        entrywidthmode: "fraction", entrywidth: 0.48, font: { size: 11 },
      });
    }
    for (const axis of [layout.xaxis, layout.yaxis]) {
      Object.assign(axis, {
        gridcolor: rule, gridwidth: 1, linecolor: read("--quiet"), tickcolor: rule,
        ticks: "outside",
        tickfont: { color: read("--muted"), size: 12 },
      });
      axis.title.font = { color: read("--muted"), size: 13 };
      if (axis.type === "log" && axis.range) Object.assign(axis, chooseTicks(axis, axis.range));
    }
    return { data, layout };
  };

  const draw = (key) => {
    const { data, layout } = dress(figures[key][shown[key]]);
    layout.uirevision = shown[key]; // another view is shown whole
    return Plotly.react(key, data, layout, {
      ...config, displayModeBar: !narrow.matches,
    });
  };

  const follow = (key) => {
    const plot = document.getElementById(key);
    plot.on("plotly_relayout", (change) => {
      const update = {};
      for (const name of ["xaxis", "yaxis"]) {
        const moved = Object.keys(change).some((part) => part.startsWith(`${name}.range`));
        const axis = plot.layout[name];
        if (axis.type !== "log" || !(moved || change[`${name}.autorange`])) continue;
        for (const [part, value] of Object.entries(chooseTicks(axis, axis.range))) {
          update[`${name}.${part}`] = value;
        }
      }
      if (Object.keys(update).length > 0) Plotly.relayout(plot, update);
    });
  };

  for (const key of Object.keys(figures)) {
    draw(key);
    follow(key);
  }
  document.querySelectorAll("select[data-figure]").forEach((select) => {
    select.addEventListener("change", () => {
      const key = select.dataset.figure;
      shown[key] = Number(select.value);
      draw(key);
      document.querySelectorAll(`[data-remarks="${key}"]`).forEach((remarks) => {
        remarks.hidden = remarks.dataset.view !== select.value;
      });
    });
  });
  const redraw = () => Object.keys(figures).forEach(draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  matchMedia("print").addEventListener("change", redraw);
})();
