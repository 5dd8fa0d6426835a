"""Write the card of a saved model."""

from pathlib import Path


def write_card(folder: Path, text: str) -> None:
    """Write a folder's README.md, and give all its files the mode of a new file.

    safetensors lets only the owner read a model.
    """
    card = folder / "README.md"
    card.write_text(text, encoding="utf-8")
    mode = card.stat().st_mode & 0o777
    for file in folder.iterdir():
        if file.is_file():
            file.chmod(mode)
