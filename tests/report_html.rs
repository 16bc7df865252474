//! `report.html` in a real browser, headless: no console error, every chart visible, sorting works, hostile
//! samples stay text. Skipped where no Chromium is installed.

mod report_fixture;

use std::fs;
use std::path::Path;
use std::process::Command;

use kto_eval::report;
use serde_json::Value;

/// Runs in the page after its own script and leaves what it saw as JSON in the document.
const PROBE: &str = r##"<script>
addEventListener("load", () => {
  const seen = { errors: window.seenErrors, title: document.title, images: document.querySelectorAll("pre img, pre script").length };
  seen.charts = [...document.querySelectorAll("figure.chart svg")].map((svg) => {
    const box = svg.getBoundingClientRect();
    return { name: svg.closest("figure").id, width: box.width, height: box.height, drawn: svg.querySelectorAll(".mark *").length };
  });
  seen.untitled = document.querySelectorAll(".chart .mark:not([data-label])").length;
  const mark = document.querySelector(".chart .mark");
  mark.dispatchEvent(new PointerEvent("pointermove", { bubbles: true, clientX: 50, clientY: 50 }));
  seen.tip = document.getElementById("tip").hidden ? "" : document.getElementById("tip").textContent;
  seen.label = mark.dataset.label;
  const table = document.querySelector("#suite-world table.sortable");
  const head = table.tHead.rows[0].cells[1];
  const order = () => [...table.tBodies[0].rows].map((row) => Number(row.cells[1].dataset.sort));
  head.firstElementChild.focus();
  seen.focused = document.activeElement === head.firstElementChild && document.activeElement.tagName === "BUTTON";
  head.firstElementChild.click();
  seen.up = order(); seen.upSays = head.getAttribute("aria-sort");
  head.firstElementChild.click();
  seen.down = order(); seen.downSays = head.getAttribute("aria-sort");
  seen.headings = [...document.querySelectorAll("h1,h2,h3,h4")].map((h) => Number(h.tagName[1]));
  // WCAG 2.2, 1.4.3: contrast of every text with what lies under it.
  const numbers = (color) => {
    const found = color.match(/-?[\d.]+(e-?\d+)?/g).map(Number);
    const [r, g, b] = color.startsWith("color(") ? found.map((v) => 255 * v) : found;
    const alpha = color.startsWith("color(") ? found[3] ?? 1 : found[3] ?? 1;
    return [r, g, b, alpha];
  };
  const over = (top, under) => top.slice(0, 3).map((v, i) => v * top[3] + under[i] * (1 - top[3]));
  const ground = (element) => {
    if (!element) return [255, 255, 255];
    const color = numbers(getComputedStyle(element).backgroundColor);
    return color[3] === 1 ? color.slice(0, 3) : over(color, ground(element.parentElement));
  };
  const light = (rgb) => rgb.map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  seen.texts = 0; seen.faint = [];
  for (const element of document.querySelectorAll("body *:not(script):not(style):not(title):not(desc)")) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    const box = element.getBoundingClientRect();
    if (!own || box.width < 2 || box.height < 2) continue;
    const style = getComputedStyle(element), under = ground(element);
    const ink = light(over(numbers(element.closest("svg") ? style.fill : style.color), under));
    const paper = light(under);
    const ratio = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
    seen.texts += 1;
    if (ratio < 4.5) seen.faint.push(`${element.tagName}.${element.className.baseVal ?? element.className} ${ratio.toFixed(2)} ${element.textContent.slice(0, 30)}`);
  }
  seen.dark = matchMedia("(prefers-color-scheme: dark)").matches;
  seen.unlabelled = [...document.querySelectorAll("svg")].filter((s) => s.getAttribute("role") !== "img" || !s.getAttribute("aria-label")).length;
  seen.says = document.querySelector("#chart-differences-world svg").getAttribute("aria-label");
  seen.headless = [...document.querySelectorAll("th:not([scope])")].length;
  seen.uncaptioned = [...document.querySelectorAll("table.sortable")].filter((t) => !t.caption?.textContent.trim()).length;
  seen.hidden = [...document.querySelectorAll("section > .scroll > table.sortable")].filter((t) => innerWidth > 1200 && t.offsetWidth > t.parentElement.clientWidth).map((t) => t.caption.textContent);
  seen.figures = JSON.parse(document.getElementById("figures").textContent).scores.length;
  seen.wide = document.documentElement.scrollWidth > innerWidth;
  const out = document.createElement("pre");
  out.id = "probe";
  out.textContent = "PROBE" + btoa(unescape(encodeURIComponent(JSON.stringify(seen)))) + "END";
  document.body.append(out);
});
</script>"##;
const WATCH: &str = r#"<script>
window.seenErrors = [];
addEventListener("error", (e) => seenErrors.push(String(e.message)));
document.addEventListener("securitypolicyviolation", (e) => seenErrors.push("policy: " + e.blockedURI));
const say = console.error; console.error = (...a) => { seenErrors.push(a.join(" ")); say(...a); };
</script>"#;

fn chromium() -> Option<&'static str> {
    ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find(|name| Command::new(name).arg("--version").output().is_ok())
}

fn probed(browser: &str, page: &Path, width: u32, dark: bool) -> Value {
    let profile = tempfile::tempdir().expect("a temporary folder");
    let mut command = Command::new(browser);
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]);
    command.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
    command.arg(format!("--user-data-dir={}", profile.path().display()));
    // Chromium's PreferredColorScheme: 0 dark, 1 light.
    command.arg(format!("--blink-settings=preferredColorScheme={}", u8::from(!dark)));
    command.arg(format!("--window-size={width},900")).arg("--dump-dom");
    let out = command.arg(format!("file://{}", page.display())).output().expect("the browser runs");
    let dom = String::from_utf8_lossy(&out.stdout);
    let text = dom.split("PROBE").last().and_then(|t| t.split("END").next()).expect("the probe ran");
    serde_json::from_slice(&decoded(text)).expect("the probe's JSON")
}

/// Base64, as the page wrote it (so that nothing in it can be taken for markup).
fn decoded(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bits, mut held, mut out) = (0u32, 0, Vec::new());
    for digit in text.bytes().filter_map(|b| DIGITS.iter().position(|d| *d == b)) {
        bits = bits << 6 | digit as u32;
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
        }
    }
    out
}

#[test]
fn the_page_works_in_a_browser() {
    let Some(browser) = chromium() else {
        eprintln!("skipped: the_page_works_in_a_browser needs Chromium (Debian: apt-get install chromium)");
        return;
    };
    let dir = tempfile::tempdir().expect("a temporary folder");
    let input = report_fixture::input(7);
    let paths = report::write(&input, dir.path()).expect("the fixture makes a report");
    let html = fs::read_to_string(&paths.html).unwrap();
    let page = dir.path().join("probed.html");
    let html = html.replacen("<head>", &format!("<head>{WATCH}"), 1).replacen(
        "</body>",
        &format!("{PROBE}</body>"),
        1,
    );
    fs::write(&page, html).unwrap();
    for (width, dark) in [(1280, false), (1280, true), (500, false)] {
        let seen = probed(browser, &page, width, dark);
        assert_eq!(seen["dark"], dark);
        assert!(seen["texts"].as_u64().unwrap() > 300, "{}", seen["texts"]);
        assert_eq!(seen["faint"], serde_json::json!([]), "texts that are hard to read, dark: {dark}");
        for key in ["unlabelled", "headless", "uncaptioned"] {
            assert_eq!(seen[key], 0, "{key}");
        }
        assert!(seen["says"].as_str().unwrap().contains("kto − sft better ("), "{}", seen["says"]);
        assert_eq!(seen["hidden"], serde_json::json!([]), "tables that a wide window cuts off");
        assert_eq!(seen["errors"], serde_json::json!([]), "console or policy errors at {width} px");
        assert_eq!(seen["title"], "kto-eval: fixture");
        assert_eq!(seen["images"], 0, "a sample became markup");
        let charts = seen["charts"].as_array().unwrap();
        assert_eq!(charts.len(), paths.charts.len());
        for chart in charts {
            let size = |side: &str| chart[side].as_f64().unwrap();
            assert!(size("width") > 300.0 && size("height") > 100.0 && size("drawn") > 3.0, "{chart}");
        }
        assert_eq!(seen["untitled"], 0, "a mark without a hover value");
        assert!(seen["tip"].as_str().unwrap().starts_with(seen["label"].as_str().unwrap()), "{seen}");
        let order = |key: &str| -> Vec<f64> {
            seen[key].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
        };
        assert!(order("up").len() == 4 && order("up").is_sorted(), "{seen}");
        assert!(order("down").iter().rev().is_sorted(), "{seen}");
        assert_eq!(seen["focused"], true, "a column's head cannot be reached by keyboard");
        assert_eq!(
            (seen["upSays"].as_str(), seen["downSays"].as_str()),
            (Some("ascending"), Some("descending"))
        );
        let levels = order("headings");
        assert!(
            levels[0] == 1.0 && levels.windows(2).all(|w| w[1] <= w[0] + 1.0 && w[1] > 1.0),
            "{levels:?}"
        );
        assert!(seen["figures"].as_u64().unwrap() > 100);
        assert_eq!(seen["wide"], false, "the page scrolls sideways at {width} px");
    }
}

#[test]
fn nothing_in_the_page_needs_a_network_and_hostile_text_is_escaped() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let paths = report::write(&report_fixture::input(7), dir.path()).expect("the fixture makes a report");
    let html = fs::read_to_string(&paths.html).unwrap();
    for outside in ["src=\"http", "href=\"http", "url(http", "@import", "<link rel=\"stylesheet"] {
        assert!(!html.contains(outside), "{outside}");
    }
    assert!(!html.contains("<script>document.title") && html.contains("&lt;script&gt;document.title"));
    assert!(!html.contains("<img src=x") && !html.contains("49 }}"), "a sample was rendered as a template");
}

#[test]
fn arms_apart_in_the_matched_currency_are_called_invalid() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut input = report_fixture::input(7);
    for run in input.runs.iter_mut().filter(|r| r.arm == "kto") {
        run.policy_tokens = run.policy_tokens * 102 / 100;
    }
    let paths = report::write(&input, dir.path()).expect("the fixture makes a report");
    for path in [&paths.html, &paths.markdown] {
        let text = fs::read_to_string(path).unwrap();
        assert!(
            text.contains("INVALID comparison: arms ended 2.") && text.contains("% apart in policy tokens"),
            "{}",
            path.display()
        );
    }
    assert!(report::terminal_summary(&input, None).contains("INVALID comparison"));
    assert!(!report::terminal_summary(&report_fixture::input(7), None).contains("INVALID"));
}

#[test]
fn absent_data_leave_charts_out_and_an_empty_record_still_makes_a_report() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut input = report_fixture::input(7);
    input.samples.clear();
    input.steps.clear();
    input.comparisons.clear();
    let paths = report::write(&input, dir.path()).expect("a part of the record makes a report");
    let names: Vec<_> =
        paths.charts.iter().map(|p| p.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    assert!(
        !names
            .iter()
            .any(|n| n.starts_with("learning") || n.starts_with("length") || n.starts_with("differences")),
        "{names:?}"
    );
    assert!(names.iter().any(|n| n == "scores-world"));
    let empty = report::Input::from_rows(
        report_fixture::plan(),
        report_fixture::environment(),
        vec![],
        vec![],
        vec![],
        vec![],
        vec![],
        vec![],
    );
    let paths = report::write(&empty, dir.path()).expect("an empty record makes a report");
    assert!(paths.charts.is_empty());
    assert!(fs::read_to_string(&paths.html).unwrap().contains("No comparisons are recorded."));
}
