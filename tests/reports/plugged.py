"""Plug-ins that a test defines itself, known to a registry for the length of a test."""

from pipeline_src.methods.base import Method, Quantity, methods
from pipeline_src.reports.figures.base import Drawing, figures
from pipeline_src.reports.figures.style import panels, styled


def plug(monkeypatch, registry, name, plugin, **facts):
    """Register `plugin`; it is gone after the test."""
    monkeypatch.setitem(registry.entries, name, (plugin.__module__, facts))
    monkeypatch.setitem(registry._loaded, name, plugin)


def method(monkeypatch, name="gentle", **changed):
    """A method that declares the quantity `gentleness`, and a detail."""
    about = {"name": "gentleness", "unit": "strokes", "caption": "How gently <m> is treated; 3 & more is gentle."}
    found = Quantity(**about | changed)
    hidden = Quantity(name="secret", unit="", caption="A detail that comparisons leave out.", detail=True)

    class Gentle(Method):
        quantities = (found, hidden)

    plug(monkeypatch, methods, name, Gentle)
    return found


def figure(monkeypatch, draw=None, name="mine", **facts):
    """A figure of one empty panel."""

    def mine(results):
        with styled():
            drawn, _ = panels(1)
        yield Drawing(f"mine-{results.name}", "My own figure", "It shows nothing.", drawn)

    plug(monkeypatch, figures, name, draw or mine, **{"place": "views", "order": 1} | facts)
