"""Pictures of levels and episodes in one style: PNG, GIF and MP4."""

from lit_crl.runs.pictures.films import film, write_gif, write_mp4
from lit_crl.runs.pictures.recording import Recording, picture_env, record_episodes, render_levels

__all__ = [
    "Recording",
    "film",
    "picture_env",
    "record_episodes",
    "render_levels",
    "write_gif",
    "write_mp4",
]
