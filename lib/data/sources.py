"""Where examples come from, by name."""

from lib.data import rows


def find(name: str, data_dir: str | None) -> rows.Opened:
    """Returns the source that a config names.

    Args:
      name: of ours (`tfds_sets.SOURCES`), or any of TFDS's.
      data_dir: where prepared TFDS sets lie; None for TFDS's default.

    Raises:
      UserError: there is no such set, or it is not prepared, or cannot be read.
    """
    from lib.data import tfds_sets  # a second, for those who need TFDS

    return tfds_sets.find(name, data_dir)
