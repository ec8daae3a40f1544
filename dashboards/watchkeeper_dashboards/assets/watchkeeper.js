// What runs in the browser: painting figures in the current colour scheme, and keeping the URL and its controls the same.
// Loaded before Dash's renderer. Pure functions are exported at the end under `dash_clientside.watchkeeper`.
(() => {
  "use strict";
  const root = document.documentElement;
  const same = () => window.dash_clientside.no_update;
  const triggered = () => (window.dash_clientside.callback_context.triggered[0] || {}).prop_id || "";
  const TRACE_ID = /^[0-9a-f]{32}$/;

  // ---- colours -------------------------------------------------------------------------------------------------
  // "$blue" is the token's colour, "$blue/20" the same at 20% opacity.
  function colour(value, styles) {
    const [name, percent] = value.slice(1).split("/");
    const hex = styles.getPropertyValue(`--wk-${name}`).trim();
    if (!percent || !hex.startsWith("#")) return hex;
    const channels = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
    return `rgba(${channels.join(",")},${Number(percent) / 100})`;
  }

  function painted(value, styles) {
    if (typeof value === "string") return /^\$[a-z]/.test(value) ? colour(value, styles) : value;
    if (Array.isArray(value)) return value.map((item) => painted(item, styles));
    if (value !== null && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, painted(item, styles)]));
    }
    return value;
  }

  function paint(figure) {
    return figure ? painted(figure, getComputedStyle(root)) : same();
  }

  // The attribute is the truth about the scheme: Mantine sets it after its own state, so the store follows the attribute.
  let watching = false;
  function scheme() {
    const now = () => root.getAttribute("data-mantine-color-scheme");
    if (!watching) {
      watching = true;
      new MutationObserver(() => window.dash_clientside.set_props("scheme", { data: now() })).observe(root, {
        attributeFilter: ["data-mantine-color-scheme"],
      });
    }
    return now();
  }

  // ---- URL -----------------------------------------------------------------------------------------------------
  // `changes` over `search`; null, undefined and "" remove a key.
  function withQuery(search, changes) {
    const query = new URLSearchParams(search || "");
    for (const [key, value] of Object.entries(changes)) {
      if (value === null || value === undefined || value === "") query.delete(key);
      else query.set(key, value);
    }
    const text = query.toString();
    return text ? `?${text}` : "";
  }

  // An interval that a link named (`since`, `until`) is none of the ranges; choosing one of these takes it away.
  function range(value, search, fallback) {
    const query = new URLSearchParams(search || "");
    if (triggered().startsWith("range.")) return [withQuery(search, { range: value, since: null, until: null }), same()];
    return [same(), query.get("since") ? "" : query.get("range") || fallback];
  }

  // Links of the navigation keep the time range, and nothing else of the query.
  function links(search, paths) {
    const kept = withQuery("", { range: new URLSearchParams(search || "").get("range") });
    return paths.map((id) => id.path + kept);
  }

  // The filters of the trace list: the controls write the query, the query writes the controls. `names` come from the page.
  function filters(...given) {
    const names = given.pop();
    const search = given.pop();
    const query = new URLSearchParams(search || "");
    if (triggered() && !triggered().startsWith("traces-url.")) {
      const changes = Object.fromEntries(names.map((name, at) => [name, given[at]]));
      return [withQuery(search, changes), ...names.map(same)];
    }
    return [same(), ...names.map((name) => query.get(name) || (name === "q" ? "" : null))];
  }

  // The same for any page whose controls have no fallbacks; the control that changed writes all of them.
  function queried(...given) {
    const names = given.pop();
    const search = given.pop();
    const query = new URLSearchParams(search || "");
    if (triggered() && !triggered().endsWith(".search")) {
      return [withQuery(search, Object.fromEntries(names.map((name, at) => [name, given[at]]))), ...names.map(same)];
    }
    return [same(), ...names.map((name) => query.get(name))];
  }

  function openTrace(id) {
    if (!TRACE_ID.test(id || "")) return;
    window.dash_clientside.set_props("url", { pathname: `/traces/${id}` });
  }

  function openPoint(click) {
    openTrace(click && click.points && click.points[0] && click.points[0].customdata);
  }

  // A point of a score's chart carries the query of the requests behind it.
  function openRequests(...clicks) {
    const cause = (window.dash_clientside.callback_context.triggered[0] || {}).value;
    const point = cause && cause.points && cause.points.find((found) => /^\?since=/.test(found.customdata || ""));
    if (point) window.dash_clientside.set_props("url", { pathname: "/traces", search: point.customdata });
  }

  // A row of the grid is opened by a click or by Enter; the grid itself only knows cells.
  function rowOf(target) {
    const row = target.closest && target.closest(".wk-grid .ag-row");
    return row ? row.getAttribute("row-id") : null;
  }
  const picks = (target) => target.closest && target.closest(".ag-selection-checkbox, [col-id^='ag-Grid-Selection']");
  document.addEventListener("click", (event) => {
    if (picks(event.target)) return;
    if (!window.getSelection().toString()) openTrace(rowOf(event.target));
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter") openTrace(rowOf(event.target));
  });

  // ---- grid ----------------------------------------------------------------------------------------------------
  // New filters start again at the top. A tick brings new rows to a reader who is at the top; further down the rows stay
  // as they are, because each block was read on from the one above it. No tick comes while a question is open, so a block
  // that is not loaded then has lost its answer: the grid is told, or it would wait for it for ever.
  function refreshGrid(search, tick, question) {
    let api = null;
    try {
      api = window.dash_ag_grid.getApi("traces-grid");
    } catch {
      return; // It is not drawn yet, and will ask for its first rows by itself.
    }
    const ticked = triggered().startsWith("traces-tick.");
    const lost = ticked && Object.values(api.getCacheBlockState() || {}).some((block) => block.pageStatus !== "loaded");
    if (lost && question && question.failCallback) question.failCallback();
    if (lost || !ticked) {
      api.purgeInfiniteCache();
      if (api.getDisplayedRowCount()) api.ensureIndexVisible(0); // of a grid without rows the library complains
    } else if (api.getFirstDisplayedRowIndex() <= 0) {
      api.refreshInfiniteCache();
    }
  }

  // The score that the list is about has a column of its own, in the place of the model's.
  function scoreColumn(search, columns) {
    const score = new URLSearchParams(search || "").get("score");
    const changed = { score: { hide: !score, headerName: score || "Score", headerTooltip: score }, model: { hide: !!score } };
    return columns.map((column) => ({ ...column, ...changed[column.field] }));
  }

  // ---- selection -----------------------------------------------------------------------------------------------
  function picked(rows) {
    const n = (rows || []).length;
    return [n ? {} : { display: "none" }, `Add ${n} to dataset`];
  }

  // A button that asks for words is off while they are missing.
  const lacks = (...words) => !words.every((word) => (word || "").trim());

  // ---- dialogs -------------------------------------------------------------------------------------------------
  // A dialog is open while the URL holds one of its keys; closing it takes them away.
  function dialog(search, opened, closed, keys) {
    const query = new URLSearchParams(search || "");
    const wanted = keys.some((key) => query.has(key));
    const cause = triggered();
    if ((cause.endsWith(".opened") && !opened && wanted) || (cause.endsWith("-close.n_clicks") && closed)) {
      return [withQuery(search, Object.fromEntries(keys.map((key) => [key, null]))), false];
    }
    return [same(), wanted];
  }

  // ---- asking again --------------------------------------------------------------------------------------------
  const GIVE_UP_MS = 25000;
  let asked = Date.now();

  // A tick of the clock becomes a question to the server, unless the last one is still open or nobody looks.
  function tick(n, asking) {
    const open = asking ? Date.now() - asked : 0;
    if (document.hidden || (asking && open < GIVE_UP_MS)) return same();
    if (asking) {
      const words = `The server has not answered for ${Math.round(open / 1000)} seconds. Trying again.`;
      const notice = { className: "wk-notice", role: "alert", children: words };
      window.dash_clientside.set_props("notice", {
        children: { namespace: "dash_html_components", type: "Div", props: notice },
      });
    }
    asked = Date.now();
    return n;
  }

  // ---- frame ---------------------------------------------------------------------------------------------------
  function navbar(opened, current) {
    return { ...current, collapsed: { mobile: !opened, desktop: false } };
  }

  function title(name) {
    document.title = name ? `${name} · Watchkeeper` : "Watchkeeper";
  }

  window.dash_clientside = Object.assign({}, window.dash_clientside, {
    watchkeeper: {
      paint, scheme, range, links, filters, queried, openPoint, openRequests, refreshGrid, scoreColumn, picked, lacks, dialog, tick, navbar,
      title, close: () => false,
    },
  });
})();
