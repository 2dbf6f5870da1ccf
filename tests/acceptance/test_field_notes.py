"""What users of other gateways suffer, and the tests that prove it does not happen here.

Gathered from the public issues, advisories and incidents of LiteLLM, MLflow's AI Gateway, Bifrost, Portkey, New API,
TensorZero and Envoy; the numbers are the peers' own. `PROVEN` has what concerns the data plane, `OTHERS` what other
parts of Promptyard have to prove. A test that is renamed or removed fails here, and so has to be replaced.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Mapping

import pytest

from tests.conftest import ROOT

#: What is suffered: by whom; and the tests that show that it is not suffered here.
PROVEN: Mapping[str, tuple[str, ...]] = {
    # Memory and speed
    "memory grows for days (litellm#12685, #25219, #21908)": (
        "tests/acceptance/test_soak.py::test_every_call_is_recorded_once_and_nothing_grows",
        "tests/gateway/providers/test_transport.py::test_a_slow_reader_slows_the_upstream_and_not_our_memory",
        "tests/gateway/test_flights.py::test_all_flights_together_hold_no_more_than_is_allowed",
    ),
    "base64 pictures make everybody slow (litellm#13546)": (
        "tests/acceptance/test_every_path.py::test_a_picture_of_10_mb_costs_little_and_holds_nobody_up",
        "tests/acceptance/test_every_path.py::test_a_picture_of_10_mb_comes_down_as_cheaply",
        "tests/gateway/dialects/test_sse.py::test_a_picture_in_one_event_is_searched_once",
        "tests/gateway/test_tokens.py::test_an_image_costs_the_same_whatever_its_bytes",
    ),
    "a start takes 40 s (litellm#2677, #6175)": (
        "tests/acceptance/test_serve.py::test_model_and_lab_load_behind_and_say_so",
        "tests/test_architecture.py::test_starting_loads_nothing_slow",
        "tests/gateway/providers/test_litellm.py::test_litellm_is_not_imported_before_its_first_call",
    ),
    "upstreams go on when the caller left (new-api#7231, litellm#30244)": (
        "tests/acceptance/test_every_path.py::test_the_upstream_is_left_before_its_answer_begins",
        "tests/acceptance/test_every_path.py::test_the_upstream_is_left_amid_a_stream",
        "tests/acceptance/test_cache.py::test_the_upstream_is_left_when_the_last_leaves",
        "tests/gateway/test_survival.py::test_leaving_a_hedge_cancels_both",
    ),
    # Limits
    "limits are looked at after the call only (envoy ai-gateway#2394)": (
        "tests/acceptance/test_limits.py::test_200_calls_at_once_against_50_requests_a_minute",
        "tests/acceptance/test_limits.py::test_tokens_are_never_given_twice",
    ),
    "with replicas, each grants the whole limit (litellm#40291, #27736)": (
        "tests/gateway/test_counters_redis.py::test_two_processes_share_redis",
        "tests/gateway/test_counters_redis.py::test_without_redis_limits_go_on_here_and_say_so",
    ),
    "a limit grants a third less than it says (litellm#24677)": (
        "tests/gateway/test_counters.py::test_of_200_at_once_exactly_50_pass",
        "tests/gateway/test_counters.py::test_a_minute_slides_exactly",
        "tests/gateway/test_counters.py::test_tokens_are_corrected_to_what_was_used",
    ),
    "no limits on OpenAI's paths (mlflow#23345, #12699)": (
        "tests/acceptance/test_every_path.py::test_limits_hold_everywhere_and_are_the_keys_own",
        "tests/acceptance/test_limits.py::test_a_routes_limit_is_shared_by_its_callers",
    ),
    "limits are of addresses, whatever their key says (MLflow)": (
        "tests/acceptance/test_every_path.py::test_limits_hold_everywhere_and_are_the_keys_own",
        "tests/gateway/test_counters.py::test_keys_do_not_share_limits",
    ),
    "token limits want max_tokens of every caller (tensorzero#3648)": (
        "tests/acceptance/test_limits.py::test_a_call_that_does_not_say_how_long_is_let_in_beside_others",
        "tests/gateway/test_limits.py::test_without_a_cap_it_claims_what_the_model_can_write_as_far_as_it_is_there",
    ),
    "a refusal does not say which rule (tensorzero#3678)": (
        "tests/gateway/test_limits.py::test_each_refusal_names_its_rule",
        "tests/acceptance/test_limits.py::test_the_official_client_raises_with_all_it_needs",
    ),
    # Streams, fallbacks, timeouts
    "no timeout while the upstream is silent (litellm#38358, bifrost#7034)": (
        "tests/acceptance/test_every_path.py::test_silence_is_not_waited_for",
        "tests/acceptance/test_every_path.py::test_silence_amid_a_stream_is_its_end_and_no_good_one",
        "tests/acceptance/test_dialects.py::test_one_that_is_silent_is_left_for_the_next",
        "tests/gateway/providers/test_transport.py::test_who_takes_a_connection_and_says_nothing_of_tls_is_late",
    ),
    "no fallback for a stream that is cut, stalls or is garbage (litellm#40404, bifrost#5395, mlflow#25262)": (
        "tests/acceptance/test_dialects.py::test_a_stream_cut_at_any_chunk_goes_on_elsewhere",
        "tests/gateway/test_rescue.py::test_a_stream_that_breaks_at_any_chunk_is_whole_all_the_same",
        "tests/gateway/test_rescue.py::test_garbage_in_the_middle_is_no_part_of_the_answer",
        "tests/gateway/test_streaming.py::test_a_stream_that_fails_at_once_is_a_502_or_a_fallback",
    ),
    "a cut stream is told as a good end (portkey#1797)": (
        "tests/acceptance/test_dialects.py::test_a_stream_that_breaks_is_an_error_and_no_end",
        "tests/acceptance/test_tasks.py::test_events_pass_unchanged",
        "tests/acceptance/test_tasks.py::test_sound_that_breaks_off_does_not_end_well",
        "tests/gateway/dialects/test_sse.py::test_an_end_before_the_answer_is_complete_is_a_failure",
        "tests/acceptance/test_cache.py::test_what_broke_off_is_asked_again",
    ),
    "a rescue writes its own English into the answer (litellm#18229)": (
        "tests/acceptance/test_dialects.py::test_a_stream_cut_at_any_chunk_goes_on_elsewhere",
        "tests/acceptance/test_dialects.py::test_who_takes_a_beginning_goes_on_from_it",
        "tests/gateway/test_rescue.py::test_a_tools_arguments_are_never_spliced",
    ),
    "every error is a reason to ask another, a 400 too (portkey#855)": (
        "tests/acceptance/test_fallbacks.py::test_the_callers_own_fault_is_sent_nowhere_else",
        "tests/gateway/test_survival.py::test_the_callers_fault_is_not_retried",
        "tests/gateway/test_survival.py::test_a_content_filter_is_never_routed_around",
    ),
    "what the upstream said is lost (mlflow#25898)": (
        "tests/acceptance/test_every_path.py::test_an_upstreams_refusal_is_told_as_it_was",
        "tests/acceptance/test_dialects.py::test_an_error_before_the_first_byte",
        "tests/acceptance/test_mlflow_gateway.py::test_it_says_what_was_refused",
        "tests/acceptance/test_fallbacks.py::test_when_everything_failed_the_last_failure_is_told",
    ),
    "prompts beyond 32 KiB break (envoy#805)": (
        "tests/acceptance/test_every_path.py::test_a_long_prompt_and_a_long_answer_arrive_whole",
        "tests/acceptance/test_bad_input.py::test_a_body_of_just_the_limit_passes",
    ),
    # Configuration and leaks
    "callers write the labels of metrics (litellm#27272)": (
        "tests/acceptance/test_telemetry.py::test_a_refused_call_is_told_without_the_name_its_caller_made_up",
    ),
    "keys in URLs, logs, tracebacks, audit rows, errors (litellm#15799, #13073, PR#39964, #31620, #18731, #30670)": (
        "tests/acceptance/test_shut.py::test_a_key_in_a_url_opens_nothing_and_is_written_nowhere",
        "tests/acceptance/test_shut.py::test_an_upstream_that_quotes_our_credential_is_not_quoted",
        "tests/acceptance/test_openai_errors.py::test_an_upstream_that_refuses_our_credential_is_a_502_that_leaks_nothing",
        "tests/gateway/providers/test_litellm.py::test_a_refusal_keeps_its_status_and_message_but_no_secret",
        "tests/acceptance/test_serve.py::test_no_secret_is_ever_shown",
        "tests/acceptance/test_keys.py::test_no_secret_in_database_journal_or_log",
        "tests/gateway/test_keys.py::test_no_secret_is_in_a_repr",
    ),
    # Incidents
    "a caller's api_base gets the provider's key (CVE-2024-6587)": (
        "tests/acceptance/test_shut.py::test_a_caller_never_sets_a_host",
        "tests/acceptance/test_shut.py::test_a_caller_gives_litellm_no_orders",
        "tests/gateway/providers/test_litellm.py::test_a_caller_cannot_give_litellm_orders",
        "tests/acceptance/test_byok.py::test_theirs_is_sent_and_ours_is_not",
        "tests/acceptance/test_fallbacks.py::test_what_failed_goes_to_the_next_deployment",  # no redirect is followed
    ),
    "SQL in a key, before anybody is known (CVE-2026-42208)": (
        "tests/acceptance/test_shut.py::test_a_key_is_no_piece_of_sql",
        "tests/gateway/test_keys.py::test_a_secret_is_256_random_bits_and_only_its_hash_is_stored",
    ),
    "a Host header in place of a key (GHSA-4xpc-pv4p-pm3w)": (
        "tests/acceptance/test_shut.py::test_no_target_and_no_host_stands_in_for_a_key",
        "tests/acceptance/test_protected.py::test_a_foreign_host_is_refused_everywhere",
    ),
    "an import fetched the price map, and no server started (litellm)": (
        "tests/acceptance/test_serve.py::test_a_start_wants_nothing_of_the_network",
        "tests/acceptance/test_shut.py::test_nothing_was_wanted_of_the_network",
        "tests/gateway/test_prices.py::test_a_broken_shipped_table_leaves_calls_unpriced",
    ),
    "clients in use were closed to make room for others (litellm)": (
        "tests/gateway/providers/test_transport.py::test_a_connection_in_use_is_not_let_go",
    ),
    "a passphrase that everybody knows (MLflow)": (
        "tests/acceptance/test_cli.py::test_a_secret_is_nowhere_on_the_disk",
        "tests/acceptance/test_serve.py::test_a_public_address_without_an_admin_key",
    ),
    # MLflow's gateway
    "a new connection for every call (MLflow)": (
        "tests/gateway/providers/test_transport.py::test_connections_are_kept_and_let_go",
        "tests/gateway/test_streaming.py::test_connections_are_used_again_after_a_stream",
    ),
    "a total of 300 s ends live streams (MLflow)": (
        "tests/acceptance/test_every_path.py::test_a_live_stream_may_take_as_long_as_it_likes",
    ),
    "an unknown model is a 500 (MLflow)": ("tests/acceptance/test_every_path.py::test_an_unknown_model_is_a_404",),
    "`stop` as text and `prompt` as a list are refused (MLflow)": (
        "tests/acceptance/test_every_path.py::test_prompts_and_stops_in_all_their_forms",
    ),
    "tools lose `$defs`, `$ref` and `anyOf` (MLflow)": (
        "tests/acceptance/test_every_path.py::test_a_tools_schema_goes_up_whole",
        "tests/acceptance/test_dialects.py::test_a_tools_schema_arrives",
    ),
    "messages lose `cache_control` and `reasoning_content` (MLflow)": (
        "tests/acceptance/test_every_path.py::test_what_a_message_has_besides_is_kept",
        "tests/gateway/dialects/test_messages_request.py::test_what_both_can_say_comes_back_equal",
    ),
    "a 503 in HTML becomes a 502 (MLflow)": (
        "tests/acceptance/test_every_path.py::test_an_upstreams_refusal_is_told_as_it_was",
    ),
    "Retry-After is not passed on (MLflow)": (
        "tests/acceptance/test_every_path.py::test_an_upstreams_refusal_is_told_as_it_was",
        "tests/acceptance/test_mlflow_gateway.py::test_a_limit_says_when_to_come_again",
    ),
    "a stream is a 200 before its upstream was asked (MLflow)": (
        "tests/acceptance/test_every_path.py::test_an_upstreams_refusal_is_told_as_it_was",
        "tests/gateway/test_streaming.py::test_silence_before_the_first_event_is_a_504_or_a_fallback",
    ),
    "unknown keys of the file are ignored (MLflow)": (
        "tests/gateway/test_config_refused.py::test_a_wrong_provider",
        "tests/gateway/test_config_refused.py::test_a_wrong_route",
        "tests/gateway/importers/test_mlflow.py::test_what_is_lost_is_listed",
    ),
}
#: What is suffered, and which part of Promptyard proves that it does not happen there.
OTHERS: Mapping[str, str] = {
    "usage pages end at a million rows (litellm#20414)": "usage",
    "filters of SQLite logs take 80 s (bifrost#4838)": "usage",
    "spend is summed up again while callers wait (litellm#35766)": "usage",
    "check and record are two steps (litellm#34732, #27381, #26672)": "money",
    "deadlocks lose spend (litellm PR#34887)": "money",
    "cached and streamed tokens are priced wrong, or twice (litellm#11789, #9812, #42663)": "money",
    "each replica has the whole budget (bifrost#3547)": "money",
    "a caller who left pays all or nothing (new-api#4168, #5235)": "money",
    "upstreams' errors are billed (new-api#5289)": "money",
    "no reload while it runs (litellm#30772, #20409)": "reload",
    "a reload ends workers and their streams (MLflow)": "reload",
}


@functools.cache
def defined(path: str) -> set[str]:
    """The names of the tests a module has."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {each.name for each in ast.parse((ROOT / path).read_text()).body if isinstance(each, kinds)}


@pytest.mark.parametrize("suffered", PROVEN)
def test_it_does_not_happen_here(suffered: str) -> None:
    for test in PROVEN[suffered]:
        path, name = test.split("::")
        assert name.startswith("test_"), test
        assert name in defined(path), f"{test} is no more. Name the test that shows now: {suffered}"


def test_nothing_stands_here_twice() -> None:
    numbers = [found for suffered in (*PROVEN, *OTHERS) for found in re.findall(r"#\d+|CVE-[\d-]+|GHSA-\w+", suffered)]
    assert sorted(numbers) == sorted(set(numbers))
    assert all(len(set(tests)) == len(tests) > 0 for tests in PROVEN.values())
