-- The sizes of JSON values as protobuf messages: `minion_wire.sizes` says the same in Python.

-- The bytes of a field with its tag and its length. Not in SQL: that would not be inlined, and is slower then.
CREATE OR REPLACE FUNCTION minion_server_framed(p_size BIGINT) RETURNS BIGINT LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
  RETURN p_size + CASE WHEN p_size < 128 THEN 2 WHEN p_size < 16384 THEN 3 WHEN p_size < 2097152 THEN 4
    WHEN p_size < 268435456 THEN 5 ELSE 6 END;
END $$;

-- The bytes of a ListValue or a Struct; numbers and other short ones first, of which there may be many.
CREATE OR REPLACE FUNCTION minion_server_content_size(p_value JSONB) RETURNS BIGINT LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
  IF jsonb_typeof(p_value) = 'array' THEN
    RETURN (SELECT coalesce(sum(CASE jsonb_typeof(e.value) WHEN 'number' THEN 11 WHEN 'null' THEN 4 WHEN 'boolean' THEN 4
        ELSE minion_server_framed(minion_server_result_size(e.value)) END), 0)
      FROM jsonb_array_elements(p_value) AS e (value));
  END IF;
  RETURN (SELECT coalesce(sum(minion_server_framed(minion_server_framed(octet_length(e.key))
      + minion_server_framed(minion_server_result_size(e.value)))), 0)
    FROM jsonb_each(p_value) AS e (key, value));
END $$;

-- The bytes of a Value by itself; as a field of another message it is framed.
CREATE OR REPLACE FUNCTION minion_server_result_size(p_value JSONB) RETURNS BIGINT LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
  RETURN CASE jsonb_typeof(p_value)
    WHEN 'number' THEN 9
    WHEN 'string' THEN minion_server_framed(octet_length(p_value #>> '{}'))
    WHEN 'array' THEN minion_server_framed(minion_server_content_size(p_value))
    WHEN 'object' THEN minion_server_framed(minion_server_content_size(p_value))
    ELSE 2 END;
END $$;

CREATE OR REPLACE FUNCTION minion_server_job_size(p_args JSONB, p_notes JSONB, p_result JSONB) RETURNS BIGINT
  LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
  RETURN minion_server_content_size(p_args) + minion_server_content_size(p_notes)
    + minion_server_result_size(coalesce(p_result, 'null'));
END $$;
