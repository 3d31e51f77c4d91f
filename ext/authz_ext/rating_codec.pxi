"""The packed form of a rate: what a call pins in the store. Part of rating.pyx.

    byte    layout number: 1, or 2 where there is a discount
    byte    flags: bits 0-1 rounding mode, 2-4 decimals, 5 has a greatest cost, 6 which ends
            the call, 7 has windows
    number  discount in basis points (layout 2 only)
    number  greatest cost (flag 5)
    text    time zone; number: how many windows (flag 7)
    number  how many tiers: of the rate itself, then of each window
    then of the rate itself and of each window:
        number  days, start and end minute (windows only), connect fee, free seconds
        number  from second, price, per seconds, increment of each tier

A number is unsigned LEB128 of the least length, a text its length in bytes and ASCII. So equal
rates have equal bytes, and a plain one takes at most 32. Before there were discounts, every rate
was of layout 1, and a rate without one still is.
"""

cdef enum:
    LAYOUT_PLAIN = 1
    LAYOUT_DISCOUNTED = 2
    FLAG_MAX_COST = 32
    FLAG_MAX_COST_ENDS = 64
    FLAG_WINDOWS = 128
    # 17 windows of at most 25 bytes, 272 tiers of at most 18, and the head.
    PACKED_LENGTH_MAX = 6_144


cdef struct writer_t:
    unsigned char data[PACKED_LENGTH_MAX]
    Py_ssize_t length


cdef void put_number(writer_t* writer, uint64_t value) noexcept:
    """Append an unsigned LEB128 number."""
    while value >= 128:
        writer.data[writer.length] = <unsigned char>(value & 127 | 128)
        writer.length += 1
        value >>= 7
    writer.data[writer.length] = <unsigned char>value
    writer.length += 1


cdef void put_text(writer_t* writer, bytes text) noexcept:
    """Append the length of a text and the text."""
    put_number(writer, PyBytes_GET_SIZE(text))
    memcpy(&writer.data[writer.length], PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
    writer.length += PyBytes_GET_SIZE(text)


cdef int64_t take_byte(reader_t* reader) except -1:
    """Read one byte; ValueError at the end."""
    if reader.position >= reader.length:
        raise ValueError("packed rate: it is cut off")
    reader.position += 1
    return reader.data[reader.position - 1]


cdef int64_t take_number(reader_t* reader) except -1:
    """Read an unsigned LEB128 number below 2**56; ValueError for any other spelling."""
    cdef int64_t byte = take_byte(reader)
    cdef int64_t value = byte & 127
    cdef int shift = 0
    while byte >= 128:
        shift += 7
        byte = take_byte(reader)
        if shift >= 56 or byte == 0:
            raise ValueError("packed rate: a number is not in its shortest form")
        value |= (byte & 127) << shift
    return value


cdef int64_t take_count(reader_t* reader, str name, int64_t high) except -1:
    """Read a number of things, 1 to `high`."""
    cdef int64_t count = take_number(reader)
    check(count, name, 1, high)
    return count


cdef str take_text(reader_t* reader):
    """Read a text of ASCII characters."""
    cdef int64_t length = take_number(reader)
    if length > reader.length - reader.position:
        raise ValueError("packed rate: it is cut off")
    text = PyBytes_FromStringAndSize(<const char*>reader.data + reader.position, length)
    reader.position += length
    return text.decode("ascii")


cdef void put_window(writer_t* writer, const window_t* window, bint is_base) noexcept:
    """Append a window and its tiers."""
    cdef int position
    if not is_base:
        put_number(writer, window.days)
        put_number(writer, window.start_minute)
        put_number(writer, window.end_minute)
    put_number(writer, window.connect_fee)
    put_number(writer, window.free_seconds)
    for position in range(window.tier_count):
        put_number(writer, window.tiers[position].from_second)
        put_number(writer, window.tiers[position].price_nanos)
        put_number(writer, window.tiers[position].per_seconds)
        put_number(writer, window.tiers[position].increment_seconds)


cdef int take_window(reader_t* reader, window_t* window, bint is_base) except -1:
    """Read a window and its tiers, whose number it knows, and check them."""
    cdef int64_t before = -1
    cdef tier_t* tier
    cdef int position
    window.days, window.start_minute, window.end_minute = ALL_DAYS, 0, DAY_MINUTES
    if not is_base:
        window.days = take_number(reader)
        window.start_minute = take_number(reader)
        window.end_minute = take_number(reader)
    window.connect_fee = take_number(reader)
    window.free_seconds = take_number(reader)
    check_window(window)
    for position in range(window.tier_count):
        tier = &window.tiers[position]
        tier.from_second = take_number(reader)
        tier.price_nanos = take_number(reader)
        tier.per_seconds = take_number(reader)
        tier.increment_seconds = take_number(reader)
        check_tier(tier)
        check_order(tier.from_second, before)
        before = tier.from_second
    return 0


cdef bytes packed(Rate rate):
    """Return the packed form of a rate."""
    cdef writer_t writer
    cdef int index
    writer.data[0] = LAYOUT_DISCOUNTED if rate._discount_basis_points else LAYOUT_PLAIN
    writer.data[1] = <unsigned char>(rate._rounding | rate._decimals << 2)
    writer.length = 2
    if rate._discount_basis_points:
        put_number(&writer, rate._discount_basis_points)
    if rate._max_cost >= 0:
        writer.data[1] |= FLAG_MAX_COST
        if rate._max_cost_ends:
            writer.data[1] |= FLAG_MAX_COST_ENDS
        put_number(&writer, rate._max_cost)
    if rate._window_count > 1:
        writer.data[1] |= FLAG_WINDOWS
        put_text(&writer, rate._zone.name.encode("ascii"))
        put_number(&writer, rate._window_count - 1)
    for index in range(rate._window_count):
        put_number(&writer, rate._windows[index].tier_count)
    for index in range(rate._window_count):
        put_window(&writer, &rate._windows[index], index == 0)
    return PyBytes_FromStringAndSize(<const char*>writer.data, writer.length)


cdef int64_t fill_head(Rate rate, reader_t* reader) except -1:
    """Read what a rate says before its windows; return how many there are, the base included."""
    cdef int64_t flags
    cdef int64_t layout = take_byte(reader)
    if layout not in (LAYOUT_PLAIN, LAYOUT_DISCOUNTED):
        raise ValueError("packed rate: unknown layout")
    flags = take_byte(reader)
    rate._rounding = flags & 3
    rate._decimals = flags >> 2 & 7
    if rate._rounding > ROUND_DOWN or rate._decimals > 6:
        raise ValueError("packed rate: impossible rounding")
    if layout == LAYOUT_DISCOUNTED:
        rate._discount_basis_points = take_number(reader)
        check(rate._discount_basis_points, "discount_basis_points", 1, DISCOUNT_LIMIT)
    if flags & FLAG_MAX_COST:
        rate._max_cost = take_number(reader)
        rate._max_cost_ends = flags & FLAG_MAX_COST_ENDS != 0
        check(rate._max_cost, "max_cost", 0, MAX_COST_LIMIT)
    elif flags & FLAG_MAX_COST_ENDS:
        raise ValueError("packed rate: it ends at no cost")
    if not flags & FLAG_WINDOWS:
        return 1
    rate._zone = find_zone(take_text(reader))
    return 1 + take_count(reader, "windows: their number", WINDOWS_LIMIT)


cdef int fill_from(Rate rate, reader_t* reader) except -1:
    """Fill a new rate from its packed form."""
    cdef int tier_counts[1 + WINDOWS_LIMIT]
    cdef int64_t window_count = fill_head(rate, reader)
    cdef int index, tier_count = 0
    for index in range(window_count):
        tier_counts[index] = take_count(reader, "tiers: their number", TIERS_LIMIT)
        tier_count += tier_counts[index]
    rate._allocate(<int>window_count, tier_count)
    for index in range(window_count):
        rate._windows[index].tier_count = tier_counts[index]
        if index > 0:
            rate._windows[index].tiers = rate._windows[index - 1].tiers + tier_counts[index - 1]
        take_window(reader, &rate._windows[index], index == 0)
    if reader.position != reader.length:
        raise ValueError("packed rate: bytes are left over")
    return rate._compile()
