"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // Charts: the library is run once the page stands; what is near the window is drawn first, all of them before
  // printing.
  const library = () => {
    const source = document.getElementById("plotly");
    if (!source) return;
    const script = document.createElement("script");
    script.textContent = source.textContent;
    source.replaceWith(script);
  };
  const draw = (plot) => {
    if (plot.dataset.drawn) return;
    plot.dataset.drawn = "1";
    library();
    const figure = JSON.parse(plot.querySelector("script").textContent);
    plot.textContent = "";
    if (plot.clientWidth < 480) figure.layout.font.size = 11;
    Plotly.newPlot(plot, figure.data, figure.layout, { responsive: true, displaylogo: false, displayModeBar: false });
    plot.on("plotly_click", (event) => {
      const anchor = event.points[0].customdata;
      if (typeof anchor === "string" && document.getElementById(anchor)) reveal(anchor);
    });
  };
  const watchCharts = () => {
    const watch = new IntersectionObserver((seen) => {
      seen.filter((entry) => entry.isIntersecting).forEach((entry) => { watch.unobserve(entry.target); draw(entry.target); });
    }, { rootMargin: "300px" });
    all(".plot").forEach((plot) => watch.observe(plot));
    // Those out of view follow one by one: a page that is pictured whole, or saved, is complete.
    const rest = () => {
      const next = all(".plot").find((plot) => !plot.dataset.drawn);
      if (next) { draw(next); setTimeout(rest, 50); }
    };
    setTimeout(rest, 1000);
  };
  // On paper a chart is as wide as the page, whatever the window was: it is drawn anew for that width.
  const PAPER_PX = 650;
  const onPaper = (plot) => {
    const most = parseFloat(plot.style.maxWidth) || PAPER_PX, width = Math.min(PAPER_PX, most);
    const [wide, high] = (plot.style.aspectRatio || "").split("/").map(Number);
    const height = wide ? width / (wide / (high || 1)) : plot.clientHeight;
    Plotly.relayout(plot, { width, height, autosize: false });
  };
  window.addEventListener("beforeprint", () => all(".plot").forEach((plot) => { draw(plot); onPaper(plot); }));
  window.addEventListener("afterprint", () => all(".plot").forEach((plot) => {
    if (plot.dataset.drawn) Plotly.relayout(plot, { width: null, height: null, autosize: true });
  }));

  // Tables: a click on a heading sorts, numbers as numbers, blanks last.
  const sort = (th) => {
    const table = th.closest("table"), at = th.cellIndex, body = table.tBodies[0];
    const before = th.getAttribute("aria-sort");
    const up = before ? before === "descending" : !th.classList.contains("n");
    const key = (row) => {
      const cell = row.cells[at];
      if (cell.dataset.v === undefined) return cell.textContent.trim();
      return cell.dataset.v === "" ? null : Number(cell.dataset.v);
    };
    const order = new Intl.Collator("en", { numeric: true });
    const rows = [...body.rows].map((row) => [key(row), row]);
    rows.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      const sign = typeof a === "number" && typeof b === "number" ? a - b : order.compare(String(a), String(b));
      return up ? sign : -sign;
    });
    all("th", table).forEach((other) => other.removeAttribute("aria-sort"));
    th.setAttribute("aria-sort", up ? "ascending" : "descending");
    body.append(...rows.map(([, row]) => row));
  };
  all("th").forEach((th) => th.firstElementChild.addEventListener("click", () => sort(th)));

  // Filters: a well that is chosen at one table or gallery holds for all; the text of a table is for its rows.
  const choices = all("select.well");
  let wanted = "";
  const filter = () => {
    choices.forEach((choice) => { choice.value = wanted; });
    const hides = (node) => wanted !== "" && node.dataset.well !== undefined && node.dataset.well !== wanted;
    all(".pictures figure").forEach((figure) => { figure.hidden = hides(figure); });
    all("table").forEach((table) => {
      const block = table.closest(".block"), box = block.querySelector(".filter");
      const text = box ? box.value.trim().toLowerCase() : "";
      const rows = [...table.tBodies[0].rows];
      rows.forEach((row) => { row.hidden = hides(row) || (text !== "" && !row.textContent.toLowerCase().includes(text)); });
      const shown = rows.filter((row) => !row.hidden).length, count = block.querySelector(".count");
      if (count) count.textContent = shown === rows.length ? `${rows.length} rows` : `${shown} of ${rows.length} rows`;
    });
  };
  choices.forEach((choice) => choice.addEventListener("change", () => { wanted = choice.value; filter(); }));
  all(".filter").forEach((box) => box.addEventListener("input", filter));
  filter();

  // Pictures: a click enlarges, legend boxes show and hide outlines, a link makes a filtered picture visible again.
  const reveal = (anchor) => {
    const target = document.getElementById(anchor);
    if (target.hidden) { wanted = ""; filter(); }
    if (location.hash === "#" + anchor) target.scrollIntoView(); else location.hash = anchor;
  };
  const enlarge = (figure) => {
    const frame = figure.querySelector(".frame"), large = figure.classList.toggle("large");
    const [width, height] = frame.style.aspectRatio.split("/").map(Number);
    frame.style.width = large ? `min(100%, ${Math.round(88 * width / height)}vh)` : "";
  };
  document.addEventListener("click", (event) => {
    const link = event.target.closest('td a[href^="#"]');
    if (link) { event.preventDefault(); reveal(link.getAttribute("href").slice(1)); }
    const frame = event.target.closest(".frame");
    if (frame) enlarge(frame.closest("figure"));
  });
  all(".gallery").forEach((gallery) => gallery.addEventListener("change", () => {
    const off = new Set(all(".legend input:not(:checked)", gallery).map((box) => box.dataset.key));
    all(".o", gallery).forEach((line) => {
      line.style.display = line.dataset.key.split(" ").some((key) => off.has(key)) ? "none" : "";
    });
  }));
  // Wide tables say that they scroll.
  const sideways = () => all(".scroll").forEach((box) => {
    const said = box.previousElementSibling;
    if (said && said.classList.contains("sideways")) said.hidden = box.scrollWidth <= box.clientWidth + 1;
  });
  window.addEventListener("resize", sideways);
  window.addEventListener("load", () => {
    sideways();
    document.documentElement.dataset.ready = String(Math.round(performance.now()));
    setTimeout(watchCharts, 0);
  });
})();
