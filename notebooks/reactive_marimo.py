# /// script
# dependencies = ["kling-integrations[jupyter,sandbox]", "marimo"]
# ///
"""A video in a notebook that runs its cells again by itself: run again, pay nothing.

    marimo edit notebooks/reactive_marimo.py

Without a key it uses a sandbox: no money, test pictures.
"""

import marimo

app = marimo.App(width="medium")


@app.cell
def _():
    import os

    import marimo as mo

    import kling_integrations as kling

    if not (os.environ.get("AIML_API_KEY") or os.environ.get("AIML_BASE_URL")):
        kling.use_sandbox(speed=60, seed=7)
    return kling, mo


@app.cell
def _(mo):
    mo.md("""
    # One video, many looks at it

    Whatever changes here runs the cells below again. A request that was paid for before is picked
    up from the ledger: only a *new* animal or light pays.
    """)
    return


@app.cell
def _(mo):
    animal = mo.ui.dropdown(["white raccoon", "red fox"], value="white raccoon", label="animal")
    light = mo.ui.dropdown(["dawn", "noon"], value="dawn", label="light")
    second = mo.ui.slider(0, 5, step=0.25, value=1, label="second", full_width=True)
    mo.vstack([mo.hstack([animal, light], justify="start"), second])
    return animal, light, second


@app.cell
def _(animal, kling, light, second):
    clip = kling.generate(
        f"A cheerful {animal.value} running through a sequoia forest at {light.value}",
        duration=5,
        aspect_ratio="16:9",
    )
    still = clip.frame(second.value)  # so that each move of the slider runs this cell again
    clip
    return clip, still


@app.cell
def _(mo, second, still):
    mo.vstack([mo.md(f"The frame at {second.value:g} s"), mo.image(still, width=320)])
    return


@app.cell
def _(clip, kling):
    history = kling.history(limit=5)
    history if clip else None
    return


if __name__ == "__main__":
    app.run()
