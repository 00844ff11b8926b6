"""Where a study is kept, and that all its workers ask the same."""

import contextlib
import json
import pathlib
import time
import warnings
from collections.abc import Iterator
from typing import Any

import optuna
from optuna.storages import journal

from experiments import workdir
from lib import errors, files

JOURNAL = "study.journal"
CONFIG = "config"
DIRECTIONS = ("maximize", "minimize")
OWN = ("storage", "run")  # settings that may differ from worker to worker


def storage(tune: Any, at: pathlib.Path) -> optuna.storages.BaseStorage:
    """Returns where `config.tune.storage` keeps the study.

    Args:
      tune: "" is a file in the workdir; else what SQLAlchemy reads, as
        "sqlite:///FILE", "postgresql://USER@HOST/NAME", "mysql://USER@HOST/NAME".
      at: the workdir.

    Raises:
      UserError: a driver is missing, or the database does not answer.
    """
    if not tune.storage:
        lock = journal.JournalFileOpenLock(str(at / JOURNAL))
        backend = journal.JournalFileBackend(str(at / JOURNAL), lock_obj=lock)
        return journal.JournalStorage(backend)
    import sqlalchemy  # a part of a second, for those alone who need it

    try:
        return _database(tune.storage)
    except ImportError as e:
        raise errors.UserError(
            f"tune.storage {_hidden(tune.storage)!r} needs a driver: {e}; such as "
            "pip install psycopg2-binary, or pymysql with mysql+pymysql://"
        ) from e
    except (sqlalchemy.exc.SQLAlchemyError, ValueError) as e:
        why = " ".join(str(e).split())
        raise errors.UserError(
            f"tune.storage {_hidden(tune.storage)!r} cannot be opened: {why}"
        ) from e


def _database(url: str) -> optuna.storages.RDBStorage:
    """Returns the database, with its tables made if they are not there yet.

    Workers that start at once on an empty one all make the tables: the first wins, and
    the others find them when they look again.
    """
    import sqlalchemy

    for pause in (1.0, 2.0):
        try:
            return optuna.storages.RDBStorage(url)
        except (
            sqlalchemy.exc.IntegrityError,
            sqlalchemy.exc.OperationalError,
            sqlalchemy.exc.ProgrammingError,
        ):
            time.sleep(pause)
    return optuna.storages.RDBStorage(url)


def _hidden(url: str) -> str:
    """Returns an address without what stands before its host."""
    kind, _, rest = url.partition("://")
    return f"{kind}://{rest.rpartition('@')[2]}"


def opened(
    config: Any, at: pathlib.Path, pruner: optuna.pruners.BasePruner
) -> optuna.Study:
    """Returns the study of the config, which is made if it is not there yet.

    Raises:
      UserError: the study of that name was begun with other settings.
    """
    tune = config.tune
    study = optuna.create_study(
        storage=storage(tune, at),
        study_name=tune.study,
        directions=[direction for _, direction in tune.objectives],
        pruner=pruner,
        load_if_exists=True,
    )
    mine = files.plain(config.to_dict())
    for name in OWN:
        mine["tune"].pop(name)
    if CONFIG not in study.user_attrs:
        study.set_user_attr(CONFIG, json.dumps(mine, sort_keys=True))
        with warnings.catch_warnings():  # Optuna may still change it, it says
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names([name for name, _ in tune.objectives])
    difference = workdir.differences(json.loads(study.user_attrs[CONFIG]), mine)
    if difference:
        raise errors.UserError(
            f"study {tune.study!r} was begun with other settings "
            f"({'; '.join(difference)}); give another --config.tune.study"
        )
    return study


@contextlib.contextmanager
def alone(at: pathlib.Path, name: str) -> Iterator[None]:
    """Lets one worker at a time in; it waits for the others.

    A folder has one writer, and workers share it. The lock of one that was killed is
    broken after ten minutes.
    """
    at.mkdir(parents=True, exist_ok=True)
    lock = journal.JournalFileOpenLock(str(at / name), grace_period=600)
    lock.acquire()
    try:
        yield
    finally:
        lock.release()
