//! A drawing surface on plotters' SVG backend. Each primitive is drawn by plotters and lands in the document
//! as a fragment of its own, so that marks can be grouped, titled (hover values) and traced to rows.

use std::sync::Once;

use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, DrawingAreaErrorKind, IntoDrawingArea};
use plotters::element::{Circle, PathElement, Polygon, Rectangle, Text};
use plotters::prelude::SVGBackend;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{
    Color, FontDesc, FontFamily, FontStyle, FontTransform, RGBAColor, RGBColor, ShapeStyle, TextStyle,
    register_font,
};

use super::palette::{INK, Marker, PAPER};
use crate::base::error::{Result, bail};
use crate::report::figures::Mark;

/// plotters draws on whole units; tenths of a pixel keep curves smooth.
const UNITS: f64 = 10.0;
/// The embedded face, then what a browser without it falls back to.
pub const FONT: &str = "Ubuntu, Helvetica, Arial, sans-serif";
/// plotters' SVG backend writes `font-size = size / 1.24`.
const SVG_SIZE: f64 = 1.24;
/// plotters measures with size = ascent − descent, which is 1.121 em in the embedded face (its `hhea` table).
const FACE_HEIGHT: f64 = 1.121;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = std::result::Result<(), DrawingAreaErrorKind<std::io::Error>>;

/// A point in pixels, y downwards.
pub type Point = (f64, f64);

/// How a text is set.
#[derive(Clone, Copy)]
pub struct TextSpec {
    pub size: f64,
    pub color: RGBColor,
    pub anchor: HPos,
    /// Turned by 90° counter-clockwise (labels of y axes).
    pub upright: bool,
    /// A rim in the paper's colour keeps labels readable across lines.
    pub halo: bool,
}

impl TextSpec {
    pub fn new(size: f64) -> Self {
        Self { size, color: INK, anchor: HPos::Left, upright: false, halo: false }
    }

    pub fn color(self, color: RGBColor) -> Self {
        Self { color, ..self }
    }

    pub fn centre(self) -> Self {
        Self { anchor: HPos::Center, ..self }
    }

    pub fn right(self) -> Self {
        Self { anchor: HPos::Right, ..self }
    }

    pub fn upright(self) -> Self {
        Self { upright: true, ..self }
    }

    pub fn halo(self) -> Self {
        Self { halo: true, ..self }
    }
}

/// Width of `text` in px at `size` px.
pub fn text_width(text: &str, size: f64) -> f64 {
    register();
    let font = FontDesc::new(FontFamily::Name(FONT), 1000.0, FontStyle::Normal);
    let units = font.layout_box(text).map_or(600 * text.chars().count() as i32, |(_, (right, _))| right);
    f64::from(units) / 1000.0 * size * FACE_HEIGHT
}

fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let face = epaint_default_fonts::UBUNTU_LIGHT;
        // A face that does not parse would make every text fail, with an error, in `Canvas::finish`.
        let _ = register_font(FONT, FontStyle::Normal, face);
    });
}

pub struct Canvas {
    pub width: f64,
    pub height: f64,
    body: String,
    marks: Vec<Mark>,
    says: String,
    error: Option<String>,
}

impl Canvas {
    pub fn new(width: f64, height: f64) -> Self {
        register();
        Self { width, height, body: String::new(), marks: Vec::new(), says: String::new(), error: None }
    }

    /// What the chart says in words, beside its title, for those who do not see it.
    pub fn says(&mut self, words: &str) {
        self.says = words.to_owned();
    }

    /// A group of primitives that shows `label` on hover and stands for `rows` of the records.
    pub fn mark(&mut self, label: &str, rows: &str, draw: impl FnOnce(&mut Self)) {
        let (title, source) = (escape(label), escape(rows));
        self.body.push_str(&format!("<g class=\"mark\" data-rows=\"{source}\"><title>{title}</title>\n"));
        draw(self);
        self.body.push_str("</g>\n");
        self.marks.push(Mark { label: label.to_owned(), rows: rows.to_owned() });
    }

    pub fn line(&mut self, points: &[Point], color: impl Color, width: f64) {
        let path: Vec<_> = points.iter().map(|p| units(*p)).collect();
        let style = color.stroke_width((width * UNITS).round() as u32);
        self.fragment(|area| area.draw(&PathElement::new(path, style)));
    }

    /// `dash` as in `stroke-dasharray`, in px.
    pub fn dashed(&mut self, points: &[Point], color: impl Color, width: f64, dash: &str) {
        let scaled: Vec<_> = dash.split_whitespace().filter_map(|d| d.parse::<f64>().ok()).collect();
        let scaled: Vec<_> = scaled.iter().map(|d| (d * UNITS).to_string()).collect();
        self.body.push_str(&format!("<g stroke-dasharray=\"{}\">\n", scaled.join(" ")));
        self.line(points, color, width);
        self.body.push_str("</g>\n");
    }

    pub fn polygon(&mut self, points: &[Point], color: impl Color) {
        let path: Vec<_> = points.iter().map(|p| units(*p)).collect();
        let style = color.to_rgba();
        self.fragment(|area| area.draw(&Polygon::new(path, style)));
    }

    pub fn rect(&mut self, from: Point, to: Point, color: impl Color) {
        let (a, b) = (units(from), units(to));
        let style = ShapeStyle::from(color.to_rgba()).filled();
        self.fragment(|area| area.draw(&Rectangle::new([a, b], style)));
    }

    pub fn circle(&mut self, centre: Point, radius: f64, color: impl Color) {
        let style = ShapeStyle::from(color.to_rgba()).filled();
        self.fragment(|area| area.draw(&Circle::new(units(centre), (radius * UNITS) as u32, style)));
    }

    pub fn ring(&mut self, centre: Point, radius: f64, color: impl Color, width: f64) {
        let style = color.stroke_width((width * UNITS) as u32);
        self.fragment(|area| area.draw(&Circle::new(units(centre), (radius * UNITS) as u32, style)));
    }

    /// A marker with a rim in the paper's colour, so that overlapping ones stay apart.
    pub fn marker(&mut self, at: Point, marker: Marker, radius: f64, color: RGBColor) {
        match marker {
            Marker::Cross | Marker::Plus => {
                self.strokes(at, marker, radius, PAPER, 5.0);
                self.strokes(at, marker, radius, color, 2.6);
            }
            Marker::Circle => {
                self.circle(at, radius + 1.2, PAPER);
                self.circle(at, radius, color);
            }
            _ => {
                self.polygon(&outline(at, marker, radius + 1.8), PAPER);
                self.polygon(&outline(at, marker, radius), color);
            }
        }
    }

    fn strokes(&mut self, (x, y): Point, marker: Marker, radius: f64, color: RGBColor, width: f64) {
        let (d, e) =
            if marker == Marker::Cross { (0.85 * radius, 0.85 * radius) } else { (1.1 * radius, 0.0) };
        self.line(&[(x - d, y - e), (x + d, y + e)], color, width);
        self.line(&[(x - e, y + d), (x + e, y - d)], color, width);
    }

    /// `at`: the anchor; vertically the middle of the small letters.
    pub fn text(&mut self, text: &str, (x, y): Point, spec: TextSpec) {
        let font = FontDesc::new(FontFamily::Name(FONT), spec.size * UNITS * SVG_SIZE, FontStyle::Normal);
        let turn = if spec.upright { FontTransform::Rotate270 } else { FontTransform::None };
        let style = TextStyle::from(font).color(&spec.color).transform(turn);
        // The vertical anchor is ours: fallback faces differ in what they call centre. 0.35 em sets the middle
        // of capitals and figures on `y`; plotters' `Bottom` shifts by −0.5 ex, about a quarter em.
        let style = style.pos(Pos::new(spec.anchor, VPos::Bottom));
        let drop = (0.35 + 0.26) * spec.size;
        let at = units(if spec.upright { (x + drop, y) } else { (x, y + drop) });
        let halo = 0.28 * spec.size * UNITS;
        if spec.halo {
            let rim = "paint-order=\"stroke\" stroke=\"#FFFFFF\" stroke-linejoin=\"round\"";
            self.body.push_str(&format!("<g {rim} stroke-width=\"{halo}\">\n"));
        }
        self.fragment(|area| area.draw(&Text::new(text.to_owned(), at, style)));
        if spec.halo {
            self.body.push_str("</g>\n");
        }
    }

    fn fragment(&mut self, draw: impl for<'a> FnOnce(&Area<'a>) -> Drawn) {
        let mut svg = String::new();
        let size = ((self.width * UNITS) as u32, (self.height * UNITS) as u32);
        let drawn = {
            let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
            draw(&area).and_then(|()| area.present())
        };
        if let Err(error) = drawn {
            self.error.get_or_insert_with(|| error.to_string());
        }
        let start = svg.find(">\n").map_or(svg.len(), |i| i + 2);
        let end = svg.rfind("</svg>").unwrap_or(svg.len()).max(start);
        // plotters writes `opacity="1"` and `stroke="none"` everywhere; both are the default.
        let inner = svg[start..end].replace(" opacity=\"1\"", "").replace(" stroke=\"none\"", "");
        self.body.push_str(&inner);
    }

    /// The SVG document and the marks in it. `title` and `caption` are for screen readers.
    pub fn finish(self, title: &str, caption: &str) -> Result<(String, Vec<Mark>)> {
        if let Some(error) = self.error {
            bail!("drawing the chart `{title}` failed: {error}");
        }
        let (w, h) = (self.width, self.height);
        let label = if self.says.is_empty() { title.to_owned() } else { format!("{title}. {}", self.says) };
        let (label, caption) = (escape(&label), escape(caption));
        let body = self.body;
        let svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{w}\" height=\"{h}\" \
             viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{label}\" stroke-linejoin=\"round\">\n\
             <desc>{caption}</desc>\n<rect class=\"paper\" width=\"100%\" height=\"100%\" fill=\"#FFFFFF\"/>\n\
             {body}</svg>\n",
            w * UNITS,
            h * UNITS
        );
        Ok((svg, self.marks))
    }
}

fn units((x, y): Point) -> (i32, i32) {
    ((x * UNITS).round() as i32, (y * UNITS).round() as i32)
}

fn outline((x, y): Point, marker: Marker, r: f64) -> Vec<Point> {
    match marker {
        Marker::Square => {
            let r = 0.9 * r;
            vec![(x - r, y - r), (x + r, y - r), (x + r, y + r), (x - r, y + r)]
        }
        Marker::Triangle => vec![(x, y - 1.15 * r), (x + 1.1 * r, y + 0.8 * r), (x - 1.1 * r, y + 0.8 * r)],
        Marker::TriangleDown => {
            vec![(x, y + 1.15 * r), (x + 1.1 * r, y - 0.8 * r), (x - 1.1 * r, y - 0.8 * r)]
        }
        _ => vec![(x, y - 1.25 * r), (x + 1.25 * r, y), (x, y + 1.25 * r), (x - 1.25 * r, y)],
    }
}

/// Text made safe for XML content and attributes. Control characters, which XML 1.0 forbids, are dropped.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() && !matches!(c, '\n' | '\t') => {}
            c => out.push(c),
        }
    }
    out
}

/// `color` at an opacity.
pub fn faded(color: RGBColor, opacity: f64) -> RGBAColor {
    color.mix(opacity)
}
