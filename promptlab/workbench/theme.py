"""How the lab looks: the tokens, the one Gradio theme made of them, and the style sheet of every page.

The tokens are CSS variables in `theme.css`, light and dark; `pages.css` lays out the pages with them.
The Gradio theme only points at them, so Gradio's parts, our own and the sign-in form cannot drift apart.
"""

from __future__ import annotations

from pathlib import Path

import gradio as gr

_HERE = Path(__file__).parent

# Inlined into every page: nothing can flash, and nothing is fetched before the first paint.
STYLE = "".join((_HERE / name).read_text(encoding="utf-8") for name in ("theme.css", "pages.css", "traces.css"))
SCRIPT = (_HERE / "lab.js").read_text(encoding="utf-8")

# What a page runs once it has read its address: from then on it may write there.
OPENED_JS = "() => { lab.opened(); }"

_FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "DejaVu Sans", "sans-serif")
_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace")

_TOKENS = {
    "body_background_fill": "ground",
    "body_text_color": "text",
    "body_text_color_subdued": "muted",
    "background_fill_primary": "panel",
    "background_fill_secondary": "sunk",
    "border_color_primary": "line",
    "border_color_accent": "accent",
    "border_color_accent_subdued": "line",
    "color_accent_soft": "accent-soft",
    "block_background_fill": "none",
    "block_border_color": "none",
    "block_title_text_color": "muted",
    "block_label_text_color": "muted",
    "block_info_text_color": "muted",
    "panel_background_fill": "none",
    "input_background_fill": "field",
    "input_background_fill_focus": "field",
    "input_border_color": "line-strong",
    "input_border_color_focus": "accent",
    "input_border_color_hover": "line-strong",
    "input_placeholder_color": "faint",
    "button_primary_background_fill": "accent",
    "button_primary_background_fill_hover": "accent-strong",
    "button_primary_text_color": "on-accent",
    "button_primary_border_color": "accent",
    "button_secondary_background_fill": "panel",
    "button_secondary_background_fill_hover": "sunk",
    "button_secondary_text_color": "text",
    "button_secondary_border_color": "line-strong",
    "button_secondary_border_color_hover": "line-strong",
    "link_text_color": "accent",
    "link_text_color_hover": "accent-strong",
    "link_text_color_visited": "accent",
    "link_text_color_active": "accent-strong",
    "loader_color": "accent",
    "error_background_fill": "bad-soft",
    "error_text_color": "bad",
    "error_border_color": "bad",
}


def theme() -> gr.themes.Base:
    """The Gradio theme: our tokens, 14-pixel text, system fonts, square spacing in steps of 4."""
    colours: dict[str, str] = {}
    for name, token in _TOKENS.items():
        colours[name] = colours[f"{name}_dark"] = f"var(--{token})"
    sizes = {
        "block_border_width": "0px",
        "block_padding": "0px",
        "block_shadow": "none",
        "block_title_text_size": "13px",
        "block_title_text_weight": "500",
        "block_info_text_size": "12px",
        "body_text_size": "14px",
        "input_text_size": "14px",
        "input_border_width": "1px",
        "input_padding": "7px 10px",
        "input_radius": "6px",
        "input_shadow": "none",
        "input_shadow_focus": "0 0 0 3px var(--accent-soft)",
        "button_border_width": "1px",
        "button_large_padding": "7px 16px",
        "button_large_radius": "6px",
        "button_large_text_size": "14px",
        "button_large_text_weight": "500",
        "button_small_padding": "4px 10px",
        "button_small_radius": "6px",
        "button_primary_shadow": "none",
        "button_primary_shadow_hover": "none",
        "button_primary_shadow_active": "none",
        "button_secondary_shadow": "none",
        "button_secondary_shadow_hover": "none",
        "button_secondary_shadow_active": "none",
        "button_transition": "background-color .12s, border-color .12s",
        "layout_gap": "16px",
        "form_gap_width": "0px",
        "container_radius": "8px",
    }
    return gr.themes.Base(font=_FONT, font_mono=_MONO).set(**colours, **sizes)
