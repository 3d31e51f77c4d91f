"""`python -m deploy.grafana.source` writes the dashboards."""

from __future__ import annotations

from deploy.grafana.source.boards import FOLDER, render

if __name__ == "__main__":
    for name, text in render().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
