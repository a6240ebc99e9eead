# temper_room(<name> [DIRECTORY dir] [NEEDS rooms…] [LINKS public libs…] [PRIVATE_LINKS libs…])
#
# One static library per room, made of src/<dir>/*.cpp. A room is included as "<dir>/file.h", and that path exists only for
# targets that (transitively) NEED the room, so an upward include does not compile.
# A room whose folder has no source yet becomes an interface library.
function(temper_room name)
  cmake_parse_arguments(ROOM "" "DIRECTORY" "NEEDS;LINKS;PRIVATE_LINKS" ${ARGN})
  if(NOT ROOM_DIRECTORY)
    set(ROOM_DIRECTORY ${name})
  endif()
  set(source_dir ${CMAKE_SOURCE_DIR}/src/${ROOM_DIRECTORY})
  file(GLOB sources CONFIGURE_DEPENDS ${source_dir}/*.cpp)

  set(include_root ${CMAKE_BINARY_DIR}/rooms/${name})
  cmake_path(GET ROOM_DIRECTORY PARENT_PATH parent)
  file(MAKE_DIRECTORY ${include_root}/${parent})
  file(CREATE_LINK ${source_dir} ${include_root}/${ROOM_DIRECTORY} SYMBOLIC)

  list(TRANSFORM ROOM_NEEDS PREPEND temper_)
  if(sources)
    add_library(temper_${name} STATIC ${sources})
    target_include_directories(temper_${name} PUBLIC ${include_root})
    target_link_libraries(temper_${name} PUBLIC temper_flags ${ROOM_NEEDS} ${ROOM_LINKS} PRIVATE ${ROOM_PRIVATE_LINKS})
    # Sources find their own room and nothing above it; the public API is implemented by api alone.
    if(name STREQUAL "api")
      target_include_directories(temper_${name} PUBLIC ${CMAKE_SOURCE_DIR}/include)
    endif()
  else()
    add_library(temper_${name} INTERFACE)
    target_include_directories(temper_${name} INTERFACE ${include_root})
    target_link_libraries(temper_${name} INTERFACE temper_flags ${ROOM_NEEDS} ${ROOM_LINKS} ${ROOM_PRIVATE_LINKS})
  endif()
  if(EXISTS ${source_dir}/room.cmake)
    include(${source_dir}/room.cmake)  # per-ISA sources and the like
  endif()
endfunction()
