import pytest

from tests.contract.key_store_suite import KeyStoreSuite
from tests.contract.secrets_store_suite import SecretsStoreSuite
from tests.contract.sleep_store_suite import SleepStoreSuite
from tests.contract.store_suite import StoreSuite
from tests.contract.template_store_suite import TemplateStoreSuite
from tests.contract.volume_store_suite import VolumeStoreSuite
from warren.contracts.store import Store
from warren.store.memory import MemoryStore


class TestMemoryStore(StoreSuite):
    @pytest.fixture
    def store(self) -> Store:
        return MemoryStore()


class TestMemoryStoreAsleep(SleepStoreSuite):
    @pytest.fixture
    def store(self) -> Store:
        return MemoryStore()


class TestMemoryStoreKeys(KeyStoreSuite):
    @pytest.fixture
    def store(self) -> Store:
        return MemoryStore()


class TestMemoryStoreSecrets(SecretsStoreSuite):
    @pytest.fixture
    def store(self) -> Store:
        return MemoryStore()


class TestMemoryStoreOfTemplates(TemplateStoreSuite):
    @pytest.fixture
    def store(self) -> Store:
        return MemoryStore()


class TestMemoryStoreVolumes(VolumeStoreSuite):
    @pytest.fixture
    def store(self) -> Store:
        return MemoryStore()
