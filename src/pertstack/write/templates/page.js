(function () {
  "use strict";
  var FIRST = 10;
  function each(selector, act, root) { Array.prototype.forEach.call((root || document).querySelectorAll(selector), act); }
  function button(text, title, act) {
    var b = document.createElement("button");
    b.type = "button"; b.textContent = text; b.setAttribute("aria-label", title); b.title = title; b.className = "save";
    b.addEventListener("click", act);
    return b;
  }
  function save(name, type, content) {
    var link = document.createElement("a"), url = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type: type }));
    link.href = url; link.download = name; document.body.appendChild(link); link.click(); link.remove();
    setTimeout(function () { URL.revokeObjectURL(url); }, 1000);
  }
  function cell(text) { text = String(text).replace(/\s+/g, " ").trim(); return /[",\n]/.test(text) ? '"' + text.replace(/"/g, '""') + '"' : text; }
  function colours(text) {
    var style = getComputedStyle(document.documentElement);
    return text.replace(/var\(--(\w+)\)/g, function (_, name) { return style.getPropertyValue("--" + name).trim(); });
  }
  function png(name, svg, width, height) {
    var image = new Image(), canvas = document.createElement("canvas"), scale = 2;
    canvas.width = width * scale; canvas.height = height * scale;
    image.onload = function () {
      var pen = canvas.getContext("2d");
      pen.fillStyle = colours("var(--paper)"); pen.fillRect(0, 0, canvas.width, canvas.height);
      pen.drawImage(image, 0, 0, canvas.width, canvas.height);
      canvas.toBlob(function (blob) { save(name + ".png", "image/png", blob); });
    };
    image.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(svg);
  }

  /* Figures drawn beforehand: SVG and PNG as they look now. */
  function standalone(svg) {
    var copy = svg.cloneNode(true), box = svg.viewBox.baseVal;
    copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
    copy.setAttribute("width", box.width); copy.setAttribute("height", box.height);
    copy.setAttribute("font-family", "sans-serif");
    return { text: colours(new XMLSerializer().serializeToString(copy)), width: box.width, height: box.height };
  }
  each("figure", function (figure, i) {
    var svg = figure.querySelector("svg"), section = figure.closest("section");
    if (!svg) { return; }
    var name = "pertstack-" + (section ? section.id : "figure") + "-" + i, tools = document.createElement("div");
    tools.className = "tools right";
    tools.appendChild(button("SVG", "Save this figure as SVG", function () { save(name + ".svg", "image/svg+xml", standalone(svg).text); }));
    tools.appendChild(button("PNG", "Save this figure as PNG", function () { var s = standalone(svg); png(name, s.text, s.width, s.height); }));
    figure.appendChild(tools);
  });

  /* Marking: one name, everywhere. */
  function mark(name) {
    var on = document.querySelector('[data-name="' + CSS.escape(name) + '"].marked') === null;
    each("[data-name]", function (x) { x.classList.toggle("marked", on && x.dataset.name === name); });
  }

  /* A list or table whose rows are filtered, and of which the first are shown until "show all". */
  function fold(rows, tools) {
    var all = tools.querySelector("button.all"), filter = tools.querySelector("input.filter"), open = !all;
    function show() {
      var wanted = filter && filter.value.trim().toLowerCase();
      rows().forEach(function (row, place) {
        var text = ((row.dataset.name || "") + " " + (row.dataset.kind || "")).toLowerCase();
        var first = row.dataset.first !== undefined && !row.dataset.sorted ? row.dataset.first === "1" : place < FIRST;
        row.hidden = wanted ? text.indexOf(wanted) < 0 : !(open || first);
      });
    }
    if (all) {
      all.addEventListener("click", function () {
        open = !open; all.textContent = open ? all.dataset.less : all.dataset.more;
        all.setAttribute("aria-expanded", String(open)); show();
      });
    }
    if (filter) { filter.addEventListener("input", show); }
    show();
    return show;
  }

  each("figure.forest", function (figure) {
    var rows = Array.from(figure.querySelectorAll("li.row")), readout = figure.querySelector(".readout"), idle = readout.textContent;
    fold(function () { return rows; }, figure.querySelector(".tools"));
    rows.forEach(function (row) {
      function tell() { readout.textContent = row.dataset.hover; }
      row.addEventListener("mouseenter", tell); row.addEventListener("focusin", tell);
      row.addEventListener("mouseleave", function () { readout.textContent = idle; });
      row.querySelector("button.name").addEventListener("click", function () { mark(row.dataset.name); });
    });
    function shown() { return rows.filter(function (r) { return !r.hidden; }); }
    function drawn() {
      var list = shown(), line = 24, left = 210, span = 460, right = 210, height = 64 + line * list.length, out = [];
      var xml = function (t) { return String(t).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/"/g, "&quot;"); };
      var x = function (percent) { return left + span * parseFloat(percent) / 100; };
      var text = function (px, py, t, more) { out.push('<text x="' + px + '" y="' + py + '" ' + (more || "") + ">" + xml(t) + "</text>"); };
      text(8, 18, "difference to " + figure.dataset.best + " on " + figure.dataset.label, 'fill="var(--muted)"');
      each(".axis b", function (b) {
        out.push('<path stroke="var(--grid)" d="M' + x(b.style.left) + " 30V" + (height - 26) + '"/>');
        text(x(b.style.left), height - 8, b.textContent, 'text-anchor="middle" fill="var(--muted)"');
      }, figure);
      list.forEach(function (row, i) {
        var y = 44 + line * i, ci = row.querySelector(".ci"), dot = row.querySelector(".dot");
        var colour = { combiner: "orange", base: "blue", ceiling: "purple" }[row.dataset.kind] || "muted";
        text(8, y + 4, row.dataset.name, 'fill="var(--ink)"' + (row.classList.contains("chosen") ? ' font-weight="700"' : ""));
        if (ci) { out.push('<path stroke="var(--' + colour + ')" stroke-opacity=".5" stroke-width="3" d="M' + x(ci.style.left) + " " + y + "h" + span * parseFloat(ci.style.width) / 100 + '"/>'); }
        if (dot) { out.push('<circle r="4.5" fill="var(--' + colour + ')" cx="' + x(dot.style.left) + '" cy="' + y + '"/>'); }
        text(left + span + 14, y + 4, row.querySelector(".value").textContent, 'fill="var(--ink)"');
      });
      var width = left + span + right;
      return { width: width, height: height, text: colours('<svg xmlns="http://www.w3.org/2000/svg" width="' + width + '" height="' + height + '" font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="var(--paper)"/>' + out.join("") + "</svg>") };
    }
    var saves = figure.querySelector(".saves");
    saves.appendChild(button("SVG", "Save the lines shown as SVG", function () { save("pertstack-differences.svg", "image/svg+xml", drawn().text); }));
    saves.appendChild(button("PNG", "Save the lines shown as PNG", function () { var d = drawn(); png("pertstack-differences", d.text, d.width, d.height); }));
    saves.appendChild(button("CSV", "Save all lines as CSV", function () {
      var lines = [["name", "kind", "difference", "low", "high"]].concat(rows.map(function (r) { return [r.dataset.name, r.dataset.kind, r.dataset.gain, r.dataset.low, r.dataset.high]; }));
      save("pertstack-differences.csv", "text/csv", lines.map(function (l) { return l.map(cell).join(","); }).join("\n") + "\n");
    }));
  });

  each("table.sortable", function (table, i) {
    var body = table.tBodies[0], tools = document.createElement("div"), long = body.rows.length > FIRST && table.classList.contains("board");
    tools.className = "tools";
    if (table.classList.contains("board")) {
      tools.innerHTML = '<label>Filter <input type="search" class="filter" placeholder="name or kind"></label>' + (long ? '<button type="button" class="all" aria-expanded="false"></button>' : "");
      if (long) { var all = tools.querySelector(".all"); all.dataset.more = "Show all " + body.rows.length; all.dataset.less = "Show the best ten"; all.textContent = all.dataset.more; }
    }
    var section = table.closest("section"), scroll = table.closest(".scroll") || table;
    tools.appendChild(button("CSV", "Save this table as CSV", function () {
      var lines = Array.from(table.rows).map(function (row) { return Array.from(row.cells).map(function (c) { return cell(c.innerText || c.textContent); }).join(","); });
      save("pertstack-" + (section ? section.id : "table") + "-" + i + ".csv", "text/csv", lines.join("\n") + "\n");
    }));
    scroll.parentNode.insertBefore(tools, scroll);
    var show = table.classList.contains("board") ? fold(function () { return Array.from(body.rows); }, tools) : function () {};
    each("th", function (head, column) {
      if (!head.textContent.trim()) { return; }
      var b = document.createElement("button");
      b.type = "button";
      while (head.firstChild) { b.appendChild(head.firstChild); }
      head.appendChild(b);
      b.addEventListener("click", function () {
        var up = head.getAttribute("aria-sort") === "descending";
        each("th", function (h) { h.removeAttribute("aria-sort"); }, table);
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        var rows = Array.from(body.rows);
        rows.sort(function (a, c) {
          var x = a.cells[column].dataset.v !== undefined ? a.cells[column].dataset.v : a.cells[column].textContent.trim();
          var y = c.cells[column].dataset.v !== undefined ? c.cells[column].dataset.v : c.cells[column].textContent.trim();
          x = x.replace("\u2212", "-"); y = y.replace("\u2212", "-");
          if (x === "" || y === "") { return x === y ? 0 : x === "" ? 1 : -1; }
          var d = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
          return up ? d : -d;
        });
        rows.forEach(function (row) { row.dataset.sorted = "1"; body.appendChild(row); });
        show();
      });
    }, table.tHead);
    each("tr[data-name] td.name", function (td) { td.addEventListener("click", function () { mark(td.parentNode.dataset.name); }); }, table);
  });
  each(".scroll", function (box) { if (!box.hasAttribute("tabindex")) { box.tabIndex = 0; box.setAttribute("role", "region"); box.setAttribute("aria-label", "Table, scrolls sideways"); } });
}());
