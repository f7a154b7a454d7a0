"""How a drawing gets into the HTML report: panel by panel, in the page's own colours."""

from __future__ import annotations

import re
from dataclasses import dataclass
from xml.etree import ElementTree

from pipeline_src.reports.figures import style
from pipeline_src.reports.figures.base import Drawing

SVG = "http://www.w3.org/2000/svg"
XLINK = "http://www.w3.org/1999/xlink"
SYMBOLS = dict(zip(style.MARKERS, "●■▲◆▼✚✖⬢", strict=True))
VARIABLES = {
    **{style.PAPER: "--paper", style.INK: "--ink", style.SOFT: "--soft", style.LINE: "--line"},
    **{color: f"--s{i}" for i, color in enumerate(style.SERIES)},
    **{color: f"--m{i}" for i, color in enumerate(style.MODALITIES)},
}


@dataclass(frozen=True)
class Panel:
    """One set of axes as inline SVG; width in CSS pixels at which its text has its own size."""

    svg: str
    width: int


@dataclass(frozen=True)
class Key:
    """An entry of a legend."""

    label: str
    color: str
    dashes: str
    symbol: str


@dataclass(frozen=True)
class Shown:
    """A drawing ready for the page; `folded`: shown when asked for."""

    drawing: Drawing
    svg: str
    panels: list[Panel]
    keys: list[Key]
    folded: bool


def shown(drawing: Drawing, folded: bool) -> Shown:
    """The drawing as SVG, whole and panel by panel."""
    text = style.svg(drawing.figure)
    return Shown(drawing, text, panels(drawing, text), keys(drawing), folded)


def keys(drawing: Drawing) -> list[Key]:
    """The legend, for the page to write."""
    entries = []
    for label, look in drawing.legend.items():
        dashes = "" if look.dashes == "solid" else " ".join(f"{1.6 * length:g}" for length in look.dashes[1])
        symbol = {"line": "", "area": "■"}.get(drawing.keys, SYMBOLS[look.marker])
        color = f"var({VARIABLES[look.color]})" if look.color in VARIABLES else look.color
        entries.append(Key(label, color, dashes, symbol))
    return entries


def panels(drawing: Drawing, text: str) -> list[Panel]:
    """The axes of a drawing, each as an SVG of its own for the page to lay out; `text` is the drawing as `style.svg`
    gives it.

    Identifiers begin with the drawing's name, since all SVGs of a page share one name space.
    """
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    root = ElementTree.fromstring(text)
    figure = drawing.figure
    height = figure.get_figheight() * 72
    clips = {clip.get("id"): clip for clip in root.iter(f"{{{SVG}}}clipPath")}
    groups = [g for g in root.iter(f"{{{SVG}}}g") if re.fullmatch(r"axes_\d+", g.get("id", ""))]
    used = _references(text)
    made = []
    for axes, group in zip(figure.axes, groups, strict=True):
        box = axes.get_tightbbox().transformed(figure.dpi_scale_trans.inverted())
        left, top = 72 * box.x0 - 2, height - 72 * box.y1 - 2
        width, tall = 72 * box.width + 4, 72 * box.height + 4
        drawn = ElementTree.tostring(group, encoding="unicode")
        used_here = [clips.pop(name) for name in sorted(_references(drawn) & clips.keys())]  # in the first that uses it
        inside = f"<defs>{''.join(ElementTree.tostring(clip, encoding='unicode') for clip in used_here)}</defs>{drawn}"
        view = f"{left:.1f} {top:.1f} {width:.1f} {tall:.1f}"
        label = _escaped(axes.get_title(loc="left") or drawing.title)
        body = f'<svg viewBox="{view}" role="img" aria-label="{label}">{_adapted(inside, drawing.name, used)}</svg>'
        made.append(Panel(body, round(width * 96 / 72)))
    return made


def _references(text: str) -> set[str]:
    """The identifiers that SVG text refers to."""
    return set(re.findall(r'(?:url\(#|href="#)([^")]+)', text))


def _adapted(text: str, name: str, used: set[str]) -> str:
    """SVG text for the page: identifiers that are `used` with the drawing's name before them, no others;
    colours as the page's variables; the page's own font.
    """
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r' id="([^"]*)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", text)
    text = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", text)
    text = re.sub(r"; font-family: [^;\"]*", "", text)
    text = re.sub(r"#[0-9a-f]{6}\b", lambda m: f"var({VARIABLES[m[0]]})" if m[0] in VARIABLES else m[0], text)
    return re.sub(r">\s+<", "><", text)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
