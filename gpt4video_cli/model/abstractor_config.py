"""What an abstractor's file says of itself: its sizes and switches. torch is not needed to read them."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from gpt4video_cli.errors import WeightsError
from gpt4video_cli.model.tensor_headers import read_metadata

FORMAT = "gpt4video.abstractor"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class AbstractorConfig:
    """Sizes and switches. Make one with ``paper`` or ``mplug_owl_video`` unless you want something between them."""

    width: int
    """D: width of the visual features and of the queries."""
    output_width: int
    """D_llm: width of the language model's embeddings."""
    queries: int = 64
    """N: queries of each kind; also the number of video tokens."""
    layers: int = 6
    heads: int = 16
    mlp_width: int = 2816
    norm_eps: float = 1e-5
    inner_norm_eps: float = 1e-6
    """Of the norm inside the SwiGLU MLP."""
    joint_queries: bool = False
    """One pass over [F_v; Q_s; Q_t] instead of one for each kind of query."""
    shared_projection: bool = True
    """W (F_s + F_t) + b instead of two linear maps that are summed."""
    end_token: bool = False
    """A learned vector after the N tokens."""
    frame_positions: int = 0
    """Learned positions in time, added to the features of each frame; 0 is off. See ``Abstractor.forward``."""
    single_frame_skips_temporal: bool = False
    """For a clip of one frame leave the temporal queries out, as the reference implementation does."""

    def __post_init__(self) -> None:
        for name in ("width", "output_width", "queries", "layers", "heads", "mlp_width"):
            if getattr(self, name) < 1:
                raise WeightsError(f"abstractor: {name} must be 1 or more, got {getattr(self, name)}")
        if self.width % self.heads:
            raise WeightsError(f"abstractor: width {self.width} is not a multiple of heads {self.heads}")
        if self.frame_positions < 0:
            raise WeightsError(f"abstractor: frame_positions must be 0 (off) or more, got {self.frame_positions}")

    @property
    def tokens(self) -> int:
        """Embeddings that one clip becomes: N, and one more with ``end_token``."""
        return self.queries + int(self.end_token)

    @classmethod
    def paper(cls, *, width: int = 1024, output_width: int = 4096, **changes: Any) -> AbstractorConfig:
        """Equations (2)-(4) as they stand: two passes, one projection, no end token, no frame positions."""
        return cls(width=width, output_width=output_width, **changes)

    @classmethod
    def trained_here(cls, *, width: int, output_width: int, **changes: Any) -> AbstractorConfig:
        """What this project trains: the paper's layout plus frame positions, which tell first from last."""
        return cls(width=width, output_width=output_width, **{"frame_positions": 16, **changes})

    @classmethod
    def mplug_owl_video(cls, *, width: int = 1024, output_width: int = 4096, **changes: Any) -> AbstractorConfig:
        """The layout of the public mPLUG-Owl-video checkpoint."""
        owl = {
            "joint_queries": True,
            "shared_projection": False,
            "end_token": True,
            "single_frame_skips_temporal": True,
        }
        return cls(width=width, output_width=output_width, **{**owl, **changes})


def read_abstractor_config(path: str | Path) -> AbstractorConfig:
    """The configuration of a saved abstractor, without reading its tensors."""
    path = Path(path)
    metadata = read_metadata(path)
    if FORMAT not in metadata:
        raise WeightsError(f"{path}: not an abstractor file (its metadata has no {FORMAT!r})")
    try:
        header = json.loads(metadata[FORMAT])
        version, values = header["format_version"], header["config"]
        if version != FORMAT_VERSION:
            raise WeightsError(
                f"{path}: abstractor format {version}, this program reads {FORMAT_VERSION}",
                hint="use a newer gpt4video",
            )
        names = {field.name for field in fields(AbstractorConfig)}
        if set(values) != names:
            raise WeightsError(f"{path}: configuration differs in {', '.join(sorted(set(values) ^ names))}")
        return AbstractorConfig(**values)
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path}: configuration in the metadata cannot be read ({error})") from error
