"""Figures of plotly."""

import plotly.graph_objects as go

from dropoff import Artifact
from support.daemon import DaemonProcess


def test_a_figure_of_plotly_comes_back_as_a_figure(shared: DaemonProcess) -> None:
    """A plotly figure is JSON that becomes the same figure again; plain JSON beside it does not become one."""
    figure = go.Figure(data=[go.Scatter(x=[1, 2], y=[3, 4])], layout={"title": {"text": "loss"}})
    artifact = Artifact("plotly", "test", settings=shared.settings)
    artifact.add(figure, "loss")
    artifact.add({"data": []}, "plain")
    run = shared.run("frameworks", "plotly")
    run.log_artifact(artifact).wait(30)
    version = run.use_artifact("plotly")
    assert [(entry.path, entry.serializer) for entry in version.entries] == [
        (b"loss.json", "plotly-json"), (b"plain.json", "json"),
    ]  # fmt: skip
    assert type(version.get("loss")) is go.Figure
    assert version.get("loss") == figure
    assert version.get("plain") == {"data": []}
